"""Shares of the update against the gradients themselves."""

from dataclasses import replace

import pytest
import torch

from presence_ds.reweighting import Samples
from presence_ds.reweighting.update_share import source_shares, update_terms

SAMPLES, WIDTH = 12, 7


def make_samples(gradients: torch.Tensor, sources: list[int], targets: list[int]) -> Samples:
    """With norms and alignments of these gradients."""
    sums = gradients.sum(0)
    norms = gradients.square().sum(1)
    alignment = ((gradients @ sums) - norms) / (len(gradients) - 1)
    counted = torch.tensor(targets) > 0
    return Samples(
        losses=torch.zeros(len(gradients)),
        targets=torch.tensor(targets),
        sources=torch.tensor(sources),
        counted=counted,
        scores=norms,
        alignment=alignment,
    )


def test_uniform_weights_share_the_squared_norm_of_the_update() -> None:
    gradients = torch.randn(SAMPLES, WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    samples = make_samples(gradients, [0] * SAMPLES, [1] * SAMPLES)
    weights = torch.full((SAMPLES,), 1 / SAMPLES, dtype=torch.float64)
    update = weights @ gradients
    assert samples.scores is not None
    terms = update_terms(weights, samples.scores, samples.alignment)
    torch.testing.assert_close(terms, weights * (gradients @ update))
    assert terms.sum().item() == pytest.approx(update.square().sum().item())


def test_without_alignments_lengths_decide() -> None:
    terms = update_terms(torch.tensor([0.5, 0.25, 0.25]), torch.tensor([4.0, 16.0, 0.0]), None)
    assert terms.tolist() == [1.0, 1.0, 0.0]


def test_sources_that_have_more_than_twice_their_tokens() -> None:
    gradients = torch.zeros(4, 2)
    gradients[:, 0] = torch.tensor([9.0, 1.0, 1.0, 1.0])
    samples = make_samples(gradients, [5, 7, 7, 7], [10, 10, 10, 0])
    weights = torch.tensor([0.5, 0.25, 0.25, 0.0], dtype=torch.float64)
    found = source_shares(samples, weights)
    assert {number: shares["token_share"] for number, shares in found.items()} == pytest.approx({5: 1 / 3, 7: 2 / 3})
    assert sum(shares["update_share"] for shares in found.values()) == pytest.approx(1.0)
    assert found[5]["update_share"] > 2 / 3
    assert (found[5]["outsized"], found[7]["outsized"]) == (1, 0)


def test_nothing_is_told_of_what_has_no_gradient() -> None:
    samples = make_samples(torch.zeros(2, 2), [0, 1], [1, 1])
    weights = torch.tensor([0.5, 0.5], dtype=torch.float64)
    assert source_shares(samples, weights) == {}
    assert source_shares(replace(samples, scores=None, alignment=None), weights) == {}
    assert source_shares(make_samples(torch.ones(2, 2), [0, 1], [0, 0]), weights) == {}
