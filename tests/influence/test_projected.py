"""Projected self-influence: unbiased, as spread out as theory says, and the same whoever computes it."""

import pytest
import torch
from torch import Tensor, nn

from presence_ds.capture import DenseTerm, LookupTerm, OuterTerm, Term
from presence_ds.engine.scorer import Scorer
from presence_ds.influence import SampleLoss, SelfInfluence, select_parameters
from presence_ds.influence.projected import JointProjection, Projection
from tests.models import KINDS, tiny_model, tokens


def squared_norms(projection: Projection, term: Term) -> Tensor:
    return projection.sketch(term).flatten(1).square().sum(1)


def estimates(term: OuterTerm, k: int, seeds: int) -> Tensor:
    weight = torch.empty(term.rows.shape[-1], term.cols.shape[-1], dtype=torch.float64)
    return torch.stack([squared_norms(Projection(weight, "w", k, seed), term) for seed in range(seeds)])


@pytest.mark.parametrize("k", [4, 16])
def test_rank_one_is_unbiased_with_the_variance_of_theory(k: int) -> None:
    """E = ‖G‖², relative variance (1 + 2/k)² − 1 for G of rank one (METHOD: two independent χ²_k/k factors)."""
    torch.manual_seed(0)
    term = OuterTerm(torch.randn(1, 1, 50).double(), torch.randn(1, 1, 40).double())
    exact = term.rows.square().sum() * term.cols.square().sum()
    ratio = (estimates(term, k, 4000) / exact).squeeze(1)
    variance = (1 + 2 / k) ** 2 - 1
    assert ratio.mean().item() == pytest.approx(1.0, abs=4 * (variance / 4000) ** 0.5)
    assert ratio.var().item() == pytest.approx(variance, rel=0.25)


def test_higher_rank_is_unbiased_and_spreads_less() -> None:
    torch.manual_seed(0)
    k = 8
    term = OuterTerm(torch.randn(1, 64, 50).double(), torch.randn(1, 64, 40).double())
    exact = (term.rows.mT @ term.cols).square().sum()
    ratio = (estimates(term, k, 2000) / exact).squeeze(1)
    assert ratio.mean().item() == pytest.approx(1.0, abs=0.03)
    assert ratio.var().item() < 0.5 * ((1 + 2 / k) ** 2 - 1)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_whole_models_are_unbiased_over_seeds(kind: str, tied: bool) -> None:
    model = tiny_model(kind, tied=tied, dtype=torch.float64)
    ids = tokens(3, 13)
    selected = select_parameters(model, "all")
    scorer = Scorer(model, SelfInfluence(selected, None, 0), SampleLoss())
    scored = scorer.score(model.forward, (), {"input_ids": ids, "labels": ids})
    seeds = 200
    sampled = torch.stack([SelfInfluence(selected, 4, seed)(scored.capture.terms) for seed in range(seeds)])
    ratio = sampled / scored.scores
    error = 4 * ratio.std(0) / seeds**0.5
    assert ((ratio.mean(0) - 1).abs() < error).all()
    assert (ratio.std(0) < 0.6).all()


@pytest.mark.parametrize("keeps_sketches", [False, True])
def test_an_embedding_by_itself_is_exact(keeps_sketches: bool) -> None:
    """Its norm costs less than its projection; tied to the head it has to be projected. A sketch is no score."""
    ids = tokens(3, 13)
    for tied in (False, True):
        model = tiny_model("llama", tied=tied, dtype=torch.float64)
        selected = select_parameters(model, ["model.embed_tokens.weight"])
        scorer = Scorer(model, SelfInfluence(selected, None, 0), SampleLoss())
        scored = scorer.score(model.forward, (), {"input_ids": ids, "labels": ids})
        found = SelfInfluence(selected, 4, 0, keeps_sketches=keeps_sketches)(scored.capture.terms)
        assert torch.allclose(found, scored.scores, rtol=1e-9) == (not tied)


def test_sides_no_wider_than_k_are_exact() -> None:
    term = OuterTerm(torch.randn(2, 3, 5).double(), torch.randn(2, 3, 7).double())
    expected = (term.rows.mT @ term.cols).flatten(1).square().sum(1)
    torch.testing.assert_close(estimates(term, 8, 1)[0], expected)


def test_projections_depend_on_name_and_seed_alone() -> None:
    weight = nn.Parameter(torch.empty(40, 40))
    term = OuterTerm(torch.randn(2, 3, 40), torch.randn(2, 3, 40))

    def sketch(name: str, seed: int) -> Tensor:
        return Projection(weight, name, 4, seed).sketch(term)

    first = sketch("a.weight", 1)
    torch.manual_seed(1234)  # neither the global generator nor what was made before matters
    Projection(weight, "other", 4, 1)
    assert torch.equal(sketch("a.weight", 1), first)
    assert not torch.equal(sketch("b.weight", 1), first)
    assert not torch.equal(sketch("a.weight", 2), first)


def test_bfloat16_factors_are_summed_in_float32() -> None:
    rows, cols = torch.randn(2, 500, 8).bfloat16(), torch.randn(2, 500, 8).bfloat16()
    projection = Projection(torch.empty(8, 8, dtype=torch.bfloat16), "w", 8, 0)  # no side is wider
    found = projection.sketch(OuterTerm(rows, cols))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), rows.double().mT @ cols.double(), rtol=1e-5, atol=1e-4)


def test_projections_of_bfloat16_are_those_of_float32_but_for_rounding() -> None:
    rows, cols = torch.randn(2, 500, 40), torch.randn(2, 500, 40)
    weight = torch.empty(40, 40)
    wide = squared_norms(Projection(weight, "w", 8, 0), OuterTerm(rows, cols))
    narrow = squared_norms(Projection(weight.bfloat16(), "w", 8, 0), OuterTerm(rows.bfloat16(), cols.bfloat16()))
    torch.testing.assert_close(narrow, wide, rtol=0.03, atol=0.0)


@pytest.mark.parametrize("k", [None, 4, 8])
def test_sketches_of_every_kind_of_term_are_alike(k: int | None) -> None:
    """One gradient as the sum of three kinds of terms, and as the gradient itself: [B, R, C] with R = 11, C = 6."""
    torch.manual_seed(0)
    weight = torch.empty(11, 6, dtype=torch.float64)
    outer = OuterTerm(torch.randn(2, 5, 11).double(), torch.randn(2, 5, 6).double())
    lookup = LookupTerm(torch.randint(11, (2, 7)), torch.randn(2, 7, 6).double(), 11)
    dense = DenseTerm(torch.randn(2, 11, 6).double())
    whole = outer.rows.mT @ outer.cols + dense.grads
    for sample in range(2):
        whole[sample].index_add_(0, lookup.ids[sample], lookup.cols[sample])
    projection = Projection(weight, "w", k, 0)
    found = sum(projection.sketch(term) for term in (outer, lookup, dense))
    torch.testing.assert_close(found, projection.sketch(DenseTerm(whole)))
    assert found[0].numel() == projection.size
    if k is None:
        torch.testing.assert_close(found, whole)


def test_joint_projections_keep_inner_products_on_average() -> None:
    torch.manual_seed(0)
    sketches = torch.randn(6, 300, dtype=torch.float64)
    sketches[1] = sketches[0] + 0.1 * sketches[1]
    sizes = {"a": 200, "b": 100}
    width, seeds = 64, 400
    features = torch.stack([JointProjection(sizes, width, seed)(sketches) for seed in range(seeds)]).double()
    assert features.shape == (seeds, 6, width)
    found, expected = features @ features.mT, sketches @ sketches.mT
    norms = sketches.norm(dim=1)
    scale = norms[:, None] * norms[None, :]
    assert ((found.mean(0) - expected) / scale).abs().max() < 5 * (2 / (width * seeds)) ** 0.5
    assert ((found - expected) / scale).square().mean().sqrt() < 1.5 * (2 / width) ** 0.5
