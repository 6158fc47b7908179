"""Predicted gains against those of many more samples, whose expectations are known."""

import pytest
import torch
from torch import Tensor

from presence_ds.reweighting.value.gain import COMPARED, UNIFORM, Candidate, gains, in_units, quality_sums, speedup
from presence_ds.reweighting.value.window import Window, estimate
from tests.reweighting.value.steps import Expected, constant, of_losses, of_roots, proportional, simulated

FIXED = ["paper_direct", "paper_inverse", "clip", "normalized", "loss_saturating"]


def true_gains(expected: Expected, names: list[str], count: int, steps: int = 6000) -> list[float]:
    """η by its definition, of E[a | sample] itself, in steps of ``count`` samples."""
    samples = simulated(expected, steps, count, noise=0.0, seed=1)
    assert samples.alignment is not None
    assert samples.scores is not None
    useful, norms = samples.alignment.double(), samples.scores.double()
    found = []
    for name in names:
        weights = Candidate(COMPARED[name]).weights(samples, norms, useful)
        quality = (weights * useful).mean() ** 2 / (weights**2 * norms).mean()
        found.append((quality * norms.mean() / useful.mean() ** 2).item())
    return found


@pytest.mark.parametrize("expected", [constant, proportional, of_roots, of_losses])
def test_predicted_gains_are_the_true_ones_within_their_error(expected: Expected) -> None:
    samples = simulated(expected, 400, 32)
    assert samples.alignment is not None
    assert samples.scores is not None
    noise, signal = in_units(samples.scores, samples.alignment, torch.full((400,), 1.4, dtype=torch.float64))
    names = [UNIFORM, *FIXED]
    window = Window(400)
    every = [Candidate(COMPARED[name]).weights(samples, noise, signal) for name in names]
    for sums in quality_sums(torch.stack(every, dim=1), noise[:, None], signal[:, None]):
        window.add(sums)
    assert window.sums is not None
    found, error = estimate(window.sums, gains)
    assert found[0] == 1.0
    for name, value, spread, true in zip(FIXED, found[1:], error[1:], true_gains(expected, FIXED, 32), strict=True):
        assert abs(value - true) < 3.5 * spread, (name, value, spread, true)
        assert spread < 0.1, name


def test_the_best_of_the_fixed_weights_is_what_theory_says() -> None:
    """a ∝ √n: normalized gradients; a ∝ n: uniform; their gain over uniform by its closed form, n log-normal."""
    (normalized,) = true_gains(of_roots, ["normalized"], 4000, 50)
    # Q(1/√n) / Q(1) = E[a/√n]² E[n] / E[a]², a = √n, ln n ~ N(0, 0.64)
    assert normalized == pytest.approx(torch.tensor(0.64 / 2 - 2 * 0.64 / 8).exp().item(), rel=0.01)
    assert max(true_gains(proportional, FIXED, 4000, 50)) < 1.0


def test_weights_against_the_gradient_have_a_negative_gain_and_no_signal_has_none() -> None:
    sums = torch.tensor([[1.0, 1.0], [-0.5, 1.0]])
    assert gains(sums).tolist() == [1.0, -0.25]
    assert gains(torch.tensor([[0.0, 1.0], [1.0, 1.0]])).isnan().all()
    assert gains(torch.tensor([[-1.0, 1.0], [1.0, 1.0]])).isnan().all()


def test_a_gain_is_worth_less_in_steps_where_the_batch_is_large() -> None:
    assert speedup(1.0, 300.0, 32.0) == 1.0
    assert speedup(1.2, 1e9, 1.0) == pytest.approx(1.2)  # all noise: the gain itself
    assert speedup(1.2, 1e-9, 1.0) == pytest.approx(1.0)  # none
    assert speedup(1.2, 300.0, 30.0) == pytest.approx((1 + 10) / (1 + 10 / 1.2))


def test_blocks_give_the_error_of_a_ratio() -> None:
    """The jackknife's standard error is the spread of the estimate over repetitions."""
    generator = torch.Generator().manual_seed(0)

    def ratio(sums: Tensor) -> Tensor:
        return sums[..., 0] / sums[..., 1]

    values, errors = [], []
    for _ in range(300):
        window = Window(200)
        for pair in torch.randn(200, 2, generator=generator, dtype=torch.float64) + torch.tensor([1.0, 2.0]):
            window.add(pair)
        assert window.sums is not None
        value, error = estimate(window.sums, ratio)
        values.append(value)
        errors.append(error)
    assert torch.stack(errors).mean().item() == pytest.approx(torch.stack(values).std().item(), rel=0.15)


def test_a_window_forgets_whole_blocks_and_goes_on_from_its_state() -> None:
    window, other = Window(40), Window(40)
    for step in range(100):
        if step == 77:
            other.load_state_dict(window.state_dict())
        for one in (window, other)[: 1 if step < 77 else 2]:
            one.add(torch.full((step // 50 + 1,), float(step)))  # a source that comes late
    assert window.sums is not None
    assert other.sums is not None
    assert torch.equal(window.sums, other.sums)
    assert window.sums.shape == (21, 2)
    assert window.sums[:, 0].sum() == sum(range(58, 100))
    few = Window(40)
    few.add(torch.ones(1))
    assert few.sums is not None
    assert estimate(few.sums, lambda sums: sums)[1].isnan()
