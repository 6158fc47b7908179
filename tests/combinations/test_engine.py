"""The options of a section combined in a loop of one's own and in `PresenceTrainer`, and a loop that states none."""

from pathlib import Path

import pytest

from tests.combinations import hf_runs, loop_runs
from tests.combinations.covering import Combination, covering_array
from tests.combinations.factors import HUGGING_FACE, LOOP, accepts, describe, refusal, section, value
from tests.conftest import Pools


def every_combination(factors: dict[str, list[object]]) -> list[Combination]:
    accepted, refused = covering_array(factors, accepts(factors))
    return [*accepted, *refused.values()]


@pytest.mark.long
def test_the_loop(pools: Pools, tmp_path: Path) -> None:
    for index, combination in enumerate(every_combination(LOOP)):
        options = [value(LOOP, combination, name) for name in ("stage", "accumulation", "precision")]
        pool = pools.get(value(LOOP, combination, "ranks"))
        print(describe(LOOP, combination))  # the last one is the one that failed
        found = pool.run(loop_runs.run, str(tmp_path / str(index)), section(LOOP, combination), *options)
        assert found == [refusal(LOOP, combination)] * pool.size, describe(LOOP, combination)


@pytest.mark.long
def test_the_hugging_face_trainer(pools: Pools, tmp_path: Path) -> None:
    for index, combination in enumerate(every_combination(HUGGING_FACE)):
        options = [value(HUGGING_FACE, combination, name) for name in ("stage", "accumulation")]
        pool = pools.get(value(HUGGING_FACE, combination, "ranks"))
        print(describe(HUGGING_FACE, combination))
        found = pool.run(hf_runs.run, str(tmp_path / str(index)), section(HUGGING_FACE, combination), *options)
        assert found == [refusal(HUGGING_FACE, combination)] * pool.size, describe(HUGGING_FACE, combination)


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_model_and_a_configuration_are_enough(pools: Pools, ranks: int, stage: int) -> None:
    """Without a section weights are calibrated, and uniform as long as nothing is known."""
    (first, second), *others = pools.get(ranks).run(loop_runs.with_nothing_else, stage)
    assert others == [[first, second]] * (ranks - 1)
    assert first["calibration_strength"] == 0.0
    assert first["max_weight"] == 1 / first["samples"]
    assert first["gradient_noise"] > 0
    assert first["loss"] != second["loss"]
    assert not {"tau", "normalizer_mean"} & first.keys()
