"""Alignments against all inner products of all gradients in float64, which nothing of the product computes."""

import pytest
import torch
from torch import Tensor

from presence_ds.engine.momentum import DECAY, Momentum
from presence_ds.engine.scorer import Scorer
from presence_ds.influence import SampleLoss, SelfInfluence, select_parameters, vocabulary_parameters
from presence_ds.reweighting.alignment import leave_one_out
from tests.conftest import Pools
from tests.engine.splitting import directions_after_a_load
from tests.models import tiny_model, tokens

pytestmark = pytest.mark.usefixtures("one_process")

SAMPLES, SEEDS = 6, 120
Setting = tuple[torch.nn.Module, Tensor, Tensor]


def gradients(model: torch.nn.Module, ids: Tensor) -> Tensor:
    """∇ℓ of every sample, one backward each: [B, parameters]."""
    rows = []
    for sample in ids:
        model.zero_grad()
        logits = model(input_ids=sample[None]).logits[0]
        torch.nn.functional.cross_entropy(logits[:-1], sample[1:]).backward()
        rows.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    return torch.stack(rows)


def expected_of(rows: Tensor) -> tuple[Tensor, float, float]:
    """a_i, ‖G‖² and B_noise of gradients [N, parameters] by their definitions, in float64."""
    count = len(rows)
    products = rows @ rows.T
    off = products - products.diag().diag()
    alignment = off.sum(1) / (count - 1)
    square = off.sum().item() / (count * (count - 1))
    return alignment, square, (products.diag().mean().item() - square) / square


def found_of(
    model: torch.nn.Module, ids: Tensor, projection_dim: int | None, seed: int, dim: int | None = None
) -> Tensor:
    influence = SelfInfluence(select_parameters(model, "all"), projection_dim, seed, keeps_sketches=True)
    scorer = Scorer(model, influence, SampleLoss(), strategy="two_pass", sketches=True, alignment_dim=dim)
    found = scorer.score(model.forward, (), {"input_ids": ids, "labels": ids})
    assert found.sketches is not None
    assert found.scores is not None
    counted = torch.ones(len(ids), dtype=torch.bool)
    parts = [part.clone() for part in found.sketches.split(4)]
    return torch.stack([leave_one_out(parts, list(counted.split(4)), None)[0], found.scores])


@pytest.fixture(scope="module")
def setting() -> Setting:
    """A model, samples that have something in common, and their gradients."""
    model = tiny_model("llama", tied=True, dtype=torch.float64)
    ids = tokens(SAMPLES, 13)
    ids[1::2, 4:] = ids[0, 4:]
    return model, ids, gradients(model, ids)


def test_exact_sketches_give_exact_alignments(setting: Setting) -> None:
    model, ids, rows = setting
    alignment, square, scale = expected_of(rows)
    found, scores = found_of(model, ids, None, 0)
    torch.testing.assert_close(found, alignment, rtol=1e-5, atol=1e-5 * square)
    assert found.mean().item() == pytest.approx(square, rel=1e-5)
    assert (scores.mean().item() - found.mean().item()) / found.mean().item() == pytest.approx(scale, rel=1e-5)


@pytest.mark.parametrize("dim", [None, 12])
def test_projected_ones_are_unbiased_over_seeds(setting: Setting, dim: int | None) -> None:
    """Every a_i, ‖G‖², and the noise scale as a ratio of means; none may be off by four standard errors."""
    model, ids, rows = setting
    alignment, square, scale = expected_of(rows)
    sampled = torch.stack([found_of(model, ids, 4, seed, dim) for seed in range(SEEDS)])
    found, norms = sampled[:, 0], sampled[:, 1]
    error = found.std(0) / SEEDS**0.5
    assert ((found.mean(0) - alignment).abs() < 4 * error).all()
    squares = found.mean(1)
    assert abs(squares.mean().item() - square) < 4 * squares.std().item() / SEEDS**0.5
    assert squares.std() > 0.01 * square  # a projection, not the gradients themselves
    noise = norms.mean(1) - squares
    ratio = noise.mean() / squares.mean()
    spread = (noise - ratio * squares).std() / squares.mean() / SEEDS**0.5
    assert abs(ratio.item() - scale) < 4 * spread.item()


def test_the_own_term_would_feign_an_alignment() -> None:
    """Gradients with nothing in common have none, whatever their norms; with g_i in the mean it grows with them."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.linspace(1, 10, 16)[:, None]
    found, feigned = [], []
    for _ in range(400):
        rows = torch.randn(16, 30, generator=generator) * lengths
        feigned.append(rows @ rows.mean(0))
        found.append(leave_one_out([rows.clone()], [torch.ones(16, dtype=torch.bool)], None)[0])
    mean, spread = torch.stack(found).mean(0), torch.stack(found).std(0) / 20
    assert (mean.abs() < 4 * spread).all()
    assert (torch.stack(feigned).mean(0)[8:] > 20 * spread[8:]).all()


def test_samples_that_do_not_count_touch_no_other_and_one_alone_has_none() -> None:
    rows = torch.randn(6, 9, generator=torch.Generator().manual_seed(0))
    counted = torch.tensor([True, True, False, True, True, False])
    alone, total = leave_one_out([rows[counted].clone()], [torch.ones(4, dtype=torch.bool)], None)
    torch.testing.assert_close(total, rows[counted].sum(0))
    rows[2] = torch.nan
    found, with_others = leave_one_out([rows[:3].clone(), rows[3:].clone()], [counted[:3], counted[3:]], None)
    torch.testing.assert_close(with_others, total)
    torch.testing.assert_close(found[counted], alone)
    assert (found[~counted] == 0.0).all()
    single = torch.tensor([False, False, True])
    assert (leave_one_out([torch.randn(3, 4)], [single], None)[0] == 0.0).all()


@pytest.mark.parametrize("projection_dim", [None, 8])
@pytest.mark.parametrize("tied", [False, True])
def test_what_is_in_embeddings_and_head_is_told_by_itself(tied: bool, projection_dim: int | None) -> None:
    """Of the parameters with a row for every token, in float64; no other, such as those of positions."""
    model = tiny_model("gpt2", tied=tied, dtype=torch.float64)
    ids = tokens(SAMPLES, 13)
    influence = SelfInfluence(
        select_parameters(model, "all"), projection_dim, 0, keeps_sketches=True, apart=vocabulary_parameters(model)
    )
    scorer = Scorer(model, influence, SampleLoss(), strategy="two_pass", sketches=True, tells_apart=True)
    found = scorer.score(model.forward, (), {"input_ids": ids, "labels": ids})
    rows = gradients(model, ids)
    sizes = [parameter.numel() for parameter in model.parameters()]
    parts = dict(zip((name for name, _ in model.named_parameters()), rows.split(sizes, dim=1), strict=True))
    names = ["transformer.wte.weight"] + ([] if tied else ["lm_head.weight"])
    expected = sum(parts[name].square().sum(1) for name in names)
    assert found.vocabulary_scores is not None
    assert found.scores is not None
    tolerance = {"rtol": 1e-5, "atol": 1e-9} if projection_dim is None else {"rtol": 0.8, "atol": 0.0}
    torch.testing.assert_close(found.vocabulary_scores, expected, **tolerance)
    assert (found.vocabulary_scores < found.scores).all()


def test_momentum_is_the_mean_direction_of_the_steps_before() -> None:
    generator = torch.Generator().manual_seed(0)
    totals = torch.randn(6, 9, generator=generator) * torch.tensor([1e3, 1.0, 0.0, 1e-3, 5.0, 1.0])[:, None]
    momentum, expected, samples = Momentum(), torch.zeros(9), torch.randn(4, 9, generator=generator)
    assert (momentum.align(samples) == 0.0).all()
    for step, total in enumerate(totals):
        momentum.update(total)
        if step != 2:  # which has no direction
            expected = DECAY * expected + (1 - DECAY) * total / total.norm()
        torch.testing.assert_close(momentum.align(samples), samples @ expected)
    before = momentum.direction
    momentum.update(torch.full((9,), torch.inf))
    assert torch.equal(momentum.direction, before)
    again = Momentum()
    again.load_state_dict(momentum.state_dict())
    assert torch.equal(again.align(samples), momentum.align(samples))


def test_a_direction_of_other_sketches_is_left(pools: Pools) -> None:
    assert pools.get(1).run(directions_after_a_load)[0] == [True, False, False]
