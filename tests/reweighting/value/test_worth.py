"""What a run is told of its weights, its sources and its noise, step by step."""

import math

import pytest
import torch

from presence_ds.reweighting import ReweightingConfig, WeightingConfig, Worth
from presence_ds.reweighting.samples import Samples
from presence_ds.reweighting.value.noise_scale import NoiseScale
from presence_ds.reweighting.value.sources import verdict
from presence_ds.reweighting.value.unit import Unit
from presence_ds.reweighting.value.window import Window
from presence_ds.reweighting.value.worth import IN_USE
from tests.reweighting.value.steps import constant, of_losses, simulated, step_of

CONFIG = ReweightingConfig("clip", alignment=True)


def observed(samples: Samples, config: ReweightingConfig = CONFIG) -> Worth:
    """After all steps of ``samples``, which were weighed by 1/√n."""
    worth = Worth(config)
    for step in range(len(samples.losses)):
        one = step_of(samples, step)
        assert one.scores is not None
        if len(one) > 1:  # as the engine does
            worth.observe(one, one.scores.double().rsqrt())
    return worth


def test_the_weights_in_use_are_told_as_what_they_are() -> None:
    worth = observed(simulated(constant, 60, 32))
    gains = worth.gains
    assert gains[IN_USE].gain == pytest.approx(gains["normalized"].gain, rel=0.01)  # that are limited
    assert gains["uniform"] == (1.0, 0.0, 1.0)
    assert gains["paper_direct"].gain + 3 * gains["paper_direct"].error < 0.5
    assert gains["clip"].gain > 1.1
    figures = worth.figures()
    assert figures["gain/clip"] == gains["clip"].gain
    assert figures["gain/clip_speedup"] == gains["clip"].speedup
    assert 1.0 < gains["clip"].speedup < gains["clip"].gain
    assert "gain/uniform" not in figures


def test_calibrated_weights_in_use_are_not_fitted_twice() -> None:
    """What is told of them is what is in use; of a placebo, or above a floor, they are another weighting."""
    samples = simulated(constant, 60, 32)
    gains = observed(samples, ReweightingConfig("calibrated")).gains
    assert gains["calibrated"] == gains[IN_USE]
    assert gains["calibrated"].gain > 1.1
    for config in (
        ReweightingConfig("calibrated", weighting=WeightingConfig(placebo=True)),
        ReweightingConfig("calibrated", min_effective_share=0.9),
    ):
        assert observed(samples, config).gains["calibrated"] != gains[IN_USE]


def test_sources_are_judged_by_what_they_give_for_their_noise() -> None:
    samples = simulated(of_losses, 100, 64, noise=0.3)
    sources = torch.where(samples.losses > 3.6, 1, 0)  # and no sample of source 2, whose id comes later
    sources[-1, 0] = 3
    table = observed(Samples(**{**vars(samples), "sources": sources})).sources
    assert set(table) == {0, 1, 3}
    assert table[1].share == pytest.approx(0.115, abs=0.01)
    assert table[0].verdict == "keep"
    assert table[1].verdict == "drop"
    assert table[1].ratio < 0.2
    assert table[3].verdict == "doubtful"
    total = sum(source.share * source.norm for source in table.values())
    assert total == pytest.approx(1.0)
    assert sum(source.share * source.alignment for source in table.values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("ratio", "error", "expected"),
    [
        (0.8, 0.1, "keep"),
        (0.3, 0.05, "drop"),
        (0.6, 0.1, "doubtful"),
        (0.45, 0.1, "doubtful"),
        (math.nan, 1, "doubtful"),
    ],
)
def test_a_verdict_needs_two_errors(ratio: float, error: float, expected: str) -> None:
    assert verdict(ratio, error) == expected


@pytest.mark.parametrize(
    "samples",
    [
        simulated(lambda norms, losses: 0.0 * norms, 60, 32),
        simulated(lambda norms, losses: -0.3 * norms, 60, 32),
        simulated(constant, 60, 1),
        simulated(constant, 3, 32),
        Samples(**{**vars(simulated(constant, 60, 8)), "scores": torch.zeros(60, 8), "alignment": torch.zeros(60, 8)}),
    ],
    ids=["not aligned", "against", "one sample", "few steps", "no gradient"],
)
def test_what_cannot_be_told_is_absent(samples: Samples) -> None:
    worth = observed(samples)
    assert worth.gains == {}
    assert worth.figures() == {}
    assert all(source.verdict == "doubtful" for source in worth.sources.values())
    assert Worth(CONFIG).gains == {}
    assert Worth(CONFIG).sources == {}


def test_it_goes_on_from_its_state_and_begins_anew_with_other_weights() -> None:
    samples = simulated(constant, 90, 16)
    whole, first = (
        observed(samples),
        observed(Samples(**{k: v[:50] for k, v in vars(samples).items() if v is not None})),
    )
    again = Worth(CONFIG)
    again.load_state_dict(first.state_dict())
    other = Worth(ReweightingConfig("calibrated"))
    other.load_state_dict(first.state_dict())
    assert other.gains == {}
    assert other.noise_scale.samples is None
    for fields in ({"weighting": WeightingConfig(placebo=True)}, {"damping": 0.5}, {"min_effective_share": 0.5}):
        with_another = Worth(ReweightingConfig("clip", alignment=True, **fields))  # type: ignore[arg-type]
        with_another.load_state_dict(first.state_dict())
        assert with_another.gains == {}, fields
    for step in range(50, 90):
        one = step_of(samples, step)
        assert one.scores is not None
        again.observe(one, one.scores.double().rsqrt())
    assert again.gains == whole.gains
    assert again.sources == whole.sources


def test_the_noise_scale_is_a_ratio_of_sums() -> None:
    """‖G‖² = 1 and tr Σ = 50, each told with errors that a mean of ratios would not bear."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(40):
        scale = NoiseScale()
        for _ in range(300):
            signal, noise = torch.randn(2, generator=generator, dtype=torch.float64).tolist()
            scale.update(1 + 3 * signal, 50 + 5 * noise, 31.0)
        assert scale.samples is not None
        found.append(scale.samples)
        assert scale.tokens_per_sample == pytest.approx(31.0)
    assert sorted(found)[20] == pytest.approx(50, rel=0.15)


def test_a_noise_scale_is_absent_where_nothing_is_in_common() -> None:
    scale = NoiseScale()
    assert scale.samples is None
    scale.update(-0.1, 1.0, 10.0)
    assert scale.samples is None
    scale.update(0.0, 0.0, 10.0)
    assert scale.samples is None
    alike = NoiseScale()
    alike.update(2.0, 0.0, 10.0)
    assert alike.samples == 0.0


@pytest.mark.parametrize("count", [4, 32])
def test_gains_have_no_bias_with_few_samples_of_heavy_tails(count: int) -> None:
    """η of clip at σ(ln n) = 1.5 by its definition, while gradients shrink; by the steps' own means it is too low."""
    generator = torch.Generator().manual_seed(count)
    steps = 16000 // count
    worth, weighted, plain = Worth(CONFIG), [], []
    worth._gains = Window(steps)  # all steps of it
    for step in range(steps):
        norms = (1.5 * torch.randn(count, generator=generator, dtype=torch.float64)).exp()
        useful = torch.ones(count, dtype=torch.float64)
        scale = 0.999**step
        sources = torch.zeros(count, dtype=torch.int64)
        one = Samples(useful, sources + 9, sources, sources == 0, scores=norms * scale, alignment=useful * scale)
        worth.observe(one, useful)
        clipped = (norms.quantile(0.5) / norms).sqrt().clamp(max=1.0)
        clipped /= clipped.mean()
        weighted.append(torch.stack([(clipped * useful).mean(), (clipped.square() * norms).mean()]))
        plain.append(torch.stack([useful.mean(), norms.mean()]))
    (a, v), (a1, v1) = torch.stack(weighted).mean(0), torch.stack(plain).mean(0)
    found = worth.gains["clip"]
    assert found.gain == pytest.approx((a**2 / v / (a1**2 / v1)).item(), rel=0.08)
    assert found.error < 0.2


def test_no_step_counts_more_than_chance_allows() -> None:
    """The mean of 4 squared norms may be 4 times what is expected, that of 3,600 no more than a tenth above it."""
    unit = Unit()
    assert unit.take(0.0, 4) == 0.0  # no gradient yet
    assert unit.take(3.0, 4) == 3.0
    for _ in range(20):
        unit.take(1.0, 4)
    assert unit.take(1.05, 3600) == pytest.approx(1.0, abs=0.05)
    assert unit.take(110.0, 3600) == pytest.approx(100.0)
    for _ in range(40):
        unit.take(1.0, 4)
    assert unit.take(100.0, 4) == 25.0
    state = unit.state_dict()
    other = Unit()
    other.load_state_dict(state)
    assert other.take(1.0, 4) == unit.take(1.0, 4)
