"""The short form of `python -m benchmarks.trainer`."""

from dataclasses import replace

import pytest

from benchmarks.trainer import measure, report
from benchmarks.trainers import TRAINERS, TrainerSetting

TINY = TrainerSetting(
    hidden_size=64,
    layers=2,
    vocabulary=300,
    sequence_length=24,
    threads=1,
    ranks=2,
    accumulation_steps=2,
    steps=4,
    warmup=1,
    turn_steps=2,
    log_every_steps=3,
    megabytes=0.2,
)


@pytest.mark.long
def test_every_trainer_trains_the_same_model_on_the_same_samples() -> None:
    row = measure(TINY)
    assert list(row["trainers"]) == list(TRAINERS)
    losses = {name: found["losses"] for name, found in row["trainers"].items()}
    plain = losses.pop("transformers.Trainer")
    for name, ours in losses.items():
        assert ours["1"] == pytest.approx(plain["1"], rel=1e-6), name
    # transformers.Trainer logs the mean of the steps since its last log, 2 and 3 here
    assert plain["3"] < plain["1"]
    assert losses["uniform"]["3"] == pytest.approx(plain["3"], rel=1e-2)
    found = row["trainers"]["self_influence"]
    assert found["tokens_per_second"] > 0
    assert found["quartiles"][0] <= found["ratio"] <= found["quartiles"][1]
    assert f"{found['ratio']:.2f} (" in report([row]).splitlines()[4]


def test_a_trainer_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match=r"(?s)trainer loss failed:.* fewer than the 10000 of one micro-batch"):
        measure(replace(TINY, ranks=1, batch_size=10_000), ["loss"])
