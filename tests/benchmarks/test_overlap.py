"""The clock of a step against formulas, the model of the communication, and two real ranks."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest

from benchmarks.communication import ScaleSetting, step_traffic
from benchmarks.communication.clock import Channel, Clock, Layer, exposed_of_equal_layers, simulate, works
from benchmarks.overlap import MODELS, NETWORKS, Training, report, step, tokens_needed
from tests.engine import collectives
from tests.engine.training import MICRO_BATCH
from tests.models import tiny_model
from tests.ranks import Ranks

RANKS = 4
LAYERS = 8
SIZE = 1000  # parameters of a layer, of a byte each


def run(stage: Any, strategy: Any, channel: Channel, bucket: int = SIZE, prefetch: int = 10**9) -> Clock:
    """Equal layers that take a second in every sweep; PRESENCE's own exchange costs next to nothing."""
    setting = ScaleSetting(LAYERS * SIZE, RANKS, stage, strategy, 1, bytes_per_number=1, columns=0)
    layers = [Layer(SIZE, 1.0, 1.0, 1.0)] * LAYERS
    return simulate(works(layers, setting), setting, channel, bucket=bucket, prefetch=prefetch)


@pytest.mark.parametrize("seconds", [0.1, 0.9, 1.0, 1.5, 1.99, 2.0, 3.0, 10.0])
@pytest.mark.parametrize(("strategy", "window"), [(None, 2.0), ("one_pass", 1.0), ("two_pass", 2.0)])
def test_zero_2_leaves_exposed_what_the_formula_says(strategy: Any, window: float, seconds: float) -> None:
    """Beside the updated parameters, whose gather, half an all-reduce, is hidden by nothing."""
    clock = run(2, strategy, Channel(0.0, 2 * SIZE * (RANKS - 1) / RANKS / seconds))
    expected = exposed_of_equal_layers(LAYERS, seconds, window)
    assert clock.exposed == pytest.approx(expected + LAYERS * seconds / 2)
    assert clock.compute == pytest.approx(LAYERS * (5 if strategy == "two_pass" else 3))


@pytest.mark.parametrize("seconds", [0.1, 0.9, 1.0])
def test_zero_3_hides_as_much_in_one_pass(seconds: float) -> None:
    """Where the network keeps up all but the first gather and the last reduction is hidden, plain or not."""
    channel = Channel(0.0, SIZE * (RANKS - 1) / RANKS / seconds)
    assert run(3, "one_pass", channel).exposed == pytest.approx(2 * seconds)
    assert run(3, None, channel).exposed == pytest.approx(2 * seconds)


def test_what_is_not_gathered_ahead_is_waited_for() -> None:
    channel = Channel(0.25, SIZE * (RANKS - 1) / RANKS / 0.5)
    alone = run(3, None, channel, prefetch=0)  # and in the backward stands behind a reduction
    assert alone.exposed == pytest.approx(3 * LAYERS * (0.25 + 0.5))


def test_a_bucket_that_holds_all_gradients_hides_none() -> None:
    channel = Channel(0.0, 2 * SIZE * (RANKS - 1) / RANKS)
    for strategy in (None, "one_pass"):
        assert run(2, strategy, channel, bucket=10**9).exposed == pytest.approx(1.5 * LAYERS)


CASES = product((0, 1, 2, 3), (None, "one_pass", "two_pass"), (1, 3))


@pytest.mark.parametrize(("stage", "strategy", "accumulation_steps"), CASES)
def test_bytes_are_those_of_the_model(stage: Any, strategy: Any, accumulation_steps: int) -> None:
    setting = ScaleSetting(5 * SIZE, RANKS, stage, strategy, 3, accumulation_steps)
    sequence = works([Layer(SIZE, 1.0, 1.0, 1.0)] * 5, setting)
    clock = simulate(sequence, setting, Channel(0.0, 1.0), bucket=2 * SIZE, prefetch=SIZE)
    expected = step_traffic(setting)
    assert {kind: found.payload for kind, found in clock.traffic.items()} == {
        kind: found.payload for kind, found in expected.items()
    }


@pytest.mark.parametrize("strategy", [None, "one_pass"])
@pytest.mark.parametrize("stage", [2, 3])
def test_bytes_are_those_of_real_ranks(two_ranks: Ranks, stage: Any, strategy: Any) -> None:
    counted = two_ranks.run(collectives.count, stage, strategy, 1, "clip", False, False)[0]
    sizes = [parameter.numel() for parameter in tiny_model("llama", tied=False).parameters()]
    setting = ScaleSetting(sum(sizes), 2, stage, strategy, MICRO_BATCH, bytes_per_number=4)
    sequence = works([Layer(size, 1.0, 1.0, 1.0) for size in sizes], setting)
    clock = simulate(sequence, setting, Channel(0.0, 1.0), bucket=10**4, prefetch=10**4)
    for kind, (_, payload) in counted.items():
        model = clock.traffic[kind].payload if kind in clock.traffic else 0
        # over it: norms and overflow flags; under it: nothing of an embedding or a root is gathered for a backward
        assert model * 0.9 <= payload <= model + 100, (kind, counted, clock.traffic)


@pytest.mark.parametrize("model", ["1.3 B", "7 B"])
@pytest.mark.parametrize("network", NETWORKS)
def test_the_tokens_that_hide_all_are_those_of_the_formula(network: str, model: str) -> None:
    """e · F / β: to the next sample, and 5 % for what is in the last bucket and in latencies."""
    training = Training()
    found = tokens_needed(MODELS[model], NETWORKS[network], 64, training)
    expected = 2 * training.flops / NETWORKS[network].channel(64, training.efficiency).rate
    assert 0.95 * expected - training.length < found < 1.05 * expected + training.length


def test_accumulation_divides_what_zero_1_leaves_exposed_and_not_what_zero_2_does() -> None:
    def longer(stage: Any, steps: int) -> float:
        network, training = NETWORKS["1 with 400 Gb/s InfiniBand"], Training()
        plain, one_pass = (
            step(MODELS["1.3 B"], network, 64, stage, strategy, training, steps) for strategy in (None, "one_pass")
        )
        return (one_pass.exposed - plain.exposed) / plain.compute

    assert longer(1, 4) == pytest.approx(longer(1, 1) / 4, rel=0.01)
    assert longer(2, 4) == pytest.approx(longer(2, 1), rel=0.01)


def test_the_document_has_the_table() -> None:
    text = (Path(__file__).parents[2] / "docs" / "scale.md").read_text(encoding="utf-8")
    assert text.split("<!-- overlap -->")[1].split("<!-- /overlap -->")[0].strip() == report(Training())
