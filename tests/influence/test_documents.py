"""Terms that are kept apart by document: the same as those of every document by itself."""

from itertools import combinations_with_replacement

import pytest
import torch
from torch import Tensor

from presence_ds.capture import DenseTerm, Documents, LookupTerm, OuterTerm, Places, Term
from presence_ds.influence.exact import squared_norms
from presence_ds.influence.projected import Projection

ROWS, COLS, LENGTH = 5, 3, 32
INDICES = torch.stack(
    [
        torch.arange(LENGTH),  # of one position each
        torch.zeros(LENGTH, dtype=torch.int64),
        torch.tensor([0] * 9 + [2] * 4 + [1] * 3 + [-1] * 16),
        torch.full((LENGTH,), -1),
    ]
)


def documents() -> Documents:
    return Documents([INDICES], "cpu")


def random_terms() -> dict[str, Term]:
    generator = torch.Generator().manual_seed(0)
    found, shape = documents(), INDICES.shape

    def random(*sizes: int) -> Tensor:
        return torch.randn(sizes, generator=generator, dtype=torch.float64)

    ids, places = torch.randint(ROWS, shape, generator=generator), found.places(shape)
    return {
        "outer": OuterTerm(random(*shape, ROWS), random(*shape, COLS), places),
        "lookup": LookupTerm(ids, random(*shape, COLS), ROWS, places),
        "dense": DenseTerm(random(found.count, ROWS, COLS)),
    }


def gradients(term: Term) -> Tensor:
    """[P, ROWS, COLS], one document at a time."""
    if isinstance(term, DenseTerm):
        return term.grads
    rows = term.rows if isinstance(term, OuterTerm) else torch.eye(ROWS, dtype=torch.float64)[term.ids]
    parts = []
    for row, number in zip(documents().rows.tolist(), documents().numbers.tolist(), strict=True):
        own = INDICES[row] == number
        parts.append(rows[row, own].T @ term.cols[row, own])
    return torch.stack(parts)


@pytest.mark.parametrize("kinds", combinations_with_replacement(["outer", "lookup", "dense"], 2), ids="-".join)
def test_exact_norms(kinds: tuple[str, str]) -> None:
    """Also of parameters that are used twice, in two ways."""
    terms = [random_terms()[kind] for kind in kinds]
    expected = sum(map(gradients, terms), torch.zeros(())).square().sum((1, 2))
    torch.testing.assert_close(squared_norms(terms), expected)


@pytest.mark.parametrize("k", [2, 4, 8])
@pytest.mark.parametrize("kind", ["outer", "lookup"])
def test_sketches(kind: str, k: int) -> None:
    """With both sides, one and none of them projected."""
    term = random_terms()[kind]
    projection = Projection(torch.empty(ROWS, COLS, dtype=torch.float64), "w", k, 0)
    torch.testing.assert_close(projection.sketch(term), projection.sketch(DenseTerm(gradients(term))))


@pytest.mark.parametrize("kind", ["outer", "lookup"])
def test_terms_of_some_documents(kind: str) -> None:
    term, kept = random_terms()[kind], torch.tensor([1, 30, 32, 34])
    weights = torch.tensor([0.5, 2.0, 1.0, 3.0], dtype=torch.float64)
    expected = torch.tensordot(weights, gradients(term)[kept], dims=1)
    torch.testing.assert_close(term.select(kept).weighted_sum(weights, torch.float64), expected)


@pytest.mark.parametrize(("lengths", "allowed"), [([1] * 60 + [60], 4), ([1], 1), ([3, 17, 64, 16], 2), ([5, 0, 5], 1)])
def test_a_long_document_does_not_pad_the_short_ones(
    lengths: list[int], allowed: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))[None]
    multiplied = 0

    def bmm(left: Tensor, right: Tensor) -> Tensor:
        nonlocal multiplied
        multiplied += left.shape[0] * left.shape[2]
        return left @ right

    monkeypatch.setattr(torch, "bmm", bmm)
    values = torch.ones(1, ids.shape[1], 1)
    found = Places(ids, len(lengths), "cpu").outer(values, values)
    assert found.flatten().tolist() == lengths
    assert multiplied <= allowed * ids.shape[1]
