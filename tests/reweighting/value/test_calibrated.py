"""Calibrated weights: the best there are where there is something to gain, and uniform where there is nothing."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from presence_ds.reweighting import ReweightingConfig
from presence_ds.reweighting.calibrated import LEAST, MOST, Calibrated
from presence_ds.reweighting.config import Feature
from presence_ds.reweighting.samples import Samples
from presence_ds.reweighting.signals import signal_values
from presence_ds.reweighting.value.gain import gains, quality_sums
from tests.reweighting.value.steps import Expected, constant, of_losses, of_roots, proportional, simulated

CALIBRATED = ReweightingConfig("calibrated")
SETTLED = slice(150, None)


def learned(function: Calibrated, samples: Samples) -> Tensor:
    """The weights that every step has by those before it, [steps, n]."""
    values = signal_values(CALIBRATED, samples)
    return function.learn(values, function.fit(values), *units_of(samples))


def units_of(samples: Samples) -> tuple[Tensor, Tensor]:
    """n and a, whose unit is the same in all steps."""
    assert samples.alignment is not None
    assert samples.scores is not None
    return samples.scores.double(), samples.alignment.double()


def true_gain(weights: Tensor, samples: Samples, expected: Expected) -> float:
    """η of ``weights`` by E[a | sample], which no noise of a enters."""
    assert samples.scores is not None
    norms = samples.scores.double()
    noise, signal = norms, expected(norms, samples.losses.double())
    sums = torch.stack([quality_sums(w, noise, signal).sum(0) for w in (torch.ones_like(weights), weights)])
    return gains(sums)[1].item()


def best(expected: Expected) -> Callable[[Samples], Tensor]:
    """w* = E[a | sample] / n, within the limits that weights have in units of the mean."""

    def weights(samples: Samples) -> Tensor:
        assert samples.scores is not None
        norms = samples.scores.double()
        useful = expected(norms, samples.losses.double())
        return (useful / norms / (useful.mean() / norms.mean())).clamp(LEAST, MOST)

    return weights


@pytest.mark.parametrize("expected", [of_roots, of_losses, constant])
def test_they_reach_the_analytic_optimum(expected: Expected) -> None:
    """Within 3 %, of an a(n) or a(loss) that is not of the features' own form; z-scores of 256 samples are enough."""
    samples = simulated(expected, 500, 256)
    weights = learned(Calibrated(["norm", "loss"]), samples)[SETTLED]
    settled = Samples(**{name: value[SETTLED] for name, value in vars(samples).items() if value is not None})
    found, optimum = (true_gain(w, settled, expected) for w in (weights, best(expected)(settled)))
    assert optimum > 1.05
    assert found == pytest.approx(optimum, rel=0.03)


def test_few_samples_a_step_tell_the_same_as_many() -> None:
    """A rare source of large and useless gradients is weighed down alike, however many samples there are in a step."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for count in (4, 64):
        steps = 6000 // count
        sources = (torch.rand(steps, count, generator=generator) < 0.1).long()
        spread = torch.randn(steps, count, generator=generator, dtype=torch.float64)
        norms = torch.where(sources == 1, 10 * (1.5 * spread).exp(), 1.0)
        useful = torch.where(sources == 1, 1.3, 1.0)
        alike = torch.ones(steps, count)
        samples = Samples(alike, alike.long(), sources, alike.bool(), scores=norms, alignment=useful)
        function = Calibrated(["source"])
        learned(function, samples)
        values = signal_values(CALIBRATED, samples)[:, :2].clone()
        values[..., 3] = torch.tensor([0.0, 1.0])
        light = function.terms(values[0], function.fit(values[0]), 1.0, complete=True)
        found.append((light[1] / light[0]).item())
    assert found[0] == pytest.approx(found[1], abs=0.15)
    assert max(found) < 0.4


@pytest.mark.parametrize("seed", range(3))
def test_features_that_are_pure_noise_leave_them_uniform(seed: int) -> None:
    """a ∝ n leaves nothing to gain: no more than 1 % of quality is lost on the way, and the mean strength is small."""
    samples = simulated(proportional, 600, 32, seed=seed)
    weights = learned(Calibrated(["norm", "loss", "source"]), samples)
    assert true_gain(weights, samples, proportional) > 0.99
    assert (weights - 1).abs().mean() < 0.03


def test_no_sample_has_a_say_in_its_own_weight() -> None:
    samples = simulated(of_roots, 80, 16)
    assert samples.alignment is not None
    weights = learned(Calibrated(["norm", "loss"]), samples)
    assert not torch.equal(weights[-1], torch.ones(16, dtype=torch.float64))
    samples.alignment[-1] += 100.0
    assert torch.equal(learned(Calibrated(["norm", "loss"]), samples), weights)


def test_they_are_uniform_until_a_fit_has_been_tried() -> None:
    weights = learned(Calibrated(["norm"]), simulated(of_roots, 60, 64, noise=0.1))
    assert (weights[:30] == 1.0).all()
    assert (weights[40:].std(1) > 0.1).all()


def test_one_step_after_the_other_is_all_steps_at_once() -> None:
    """And a state that is saved and loaded on the way is no difference."""
    samples = simulated(of_roots, 70, 24)
    features: list[Feature] = ["norm", "loss", "length", "source"]
    together, function = learned(Calibrated(features), samples), Calibrated(features)
    for step in range(70):
        one = Samples(**{name: value[step][None] for name, value in vars(samples).items() if value is not None})
        values = signal_values(CALIBRATED, one)
        before = function.terms(values[0], function.fit(values[0]), 1.0, complete=True)
        torch.testing.assert_close(before, together[step], rtol=1e-9, atol=1e-9)
        learned(function, one)
        if step == 50:
            state, function = function.state_dict(), Calibrated(features)
            function.load_state_dict(state)


def test_a_source_that_is_good_for_little_is_weighed_down_and_one_that_comes_late_is_taken_in() -> None:
    samples = simulated(of_losses, 160, 64, noise=0.3)
    sources = torch.where(samples.losses > 3.5, 2, 0)
    sources[:60] = 0
    samples = Samples(**{**vars(samples), "sources": sources})
    weights = learned(Calibrated(["source"]), samples)
    assert (weights[:60] == 1.0).all()  # one source alone tells nothing
    assert weights[-20:][sources[-20:] == 2].mean() < 0.5
    assert weights[-20:][sources[-20:] == 0].mean() > 1.0


def test_strength_falls_with_tau_and_weights_stay_within_their_limits() -> None:
    samples = simulated(of_losses, 100, 64, noise=0.1)
    function = Calibrated(["norm", "loss"])
    learned(function, samples)
    values = signal_values(CALIBRATED, samples)[0]
    figures = function.fit(values)
    full, half, none = (function.terms(values, figures, tau, complete=True) for tau in (1.0, 0.5, 0.0))
    assert full.min() >= LEAST
    assert full.max() <= MOST
    assert full.std() > 0.2
    torch.testing.assert_close(half - 1, (full - 1) / 2)
    assert (none == 1.0).all()
    assert function.describe(figures, 0.5)["calibration_strength"] == pytest.approx(function.strength / 2)


STRANGE = {
    "fewer samples than features": simulated(of_roots, 50, 3),
    "one sample": simulated(of_roots, 50, 1),
    "norms alike": Samples(**{**vars(simulated(of_roots, 50, 8)), "scores": torch.full((50, 8), 2.0)}),
    "no gradient at all": Samples(
        **{**vars(simulated(of_roots, 50, 8)), "scores": torch.zeros(50, 8), "alignment": torch.zeros(50, 8)}
    ),
    "some without a gradient": Samples(
        **{**vars(simulated(of_roots, 50, 8)), "scores": torch.arange(8.0).expand(50, 8).clone()}
    ),
    "losses alike": Samples(**{**vars(simulated(of_roots, 50, 8)), "losses": torch.ones(50, 8)}),
    "against the gradient": simulated(lambda norms, losses: -0.3 * norms, 50, 8),
    "huge": Samples(**{**vars(simulated(of_roots, 50, 8)), "scores": torch.rand(50, 8) * 1e38}),
}


@pytest.mark.parametrize("name", STRANGE)
def test_strange_steps_have_weights(name: str) -> None:
    weights = learned(Calibrated(["norm", "loss", "length", "source"]), STRANGE[name])
    assert weights.isfinite().all()
    assert (weights > 0).all()
    if name in ("one sample", "no gradient at all", "against the gradient"):
        assert (weights == 1.0).all()
