"""Exact norms take little memory beside the terms, however large the vocabulary; split or not they are the same."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from presence_ds.capture import Documents, LookupTerm, OuterTerm, bmm_wide, terms
from presence_ds.influence import exact
from presence_ds.trainer.estimate.activations import Allocations

Factors = OuterTerm | LookupTerm


def head(shape: tuple[int, int], vocabulary: int, width: int, device: str, by: Documents | None) -> list[Factors]:
    torch.manual_seed(1)
    rows = torch.randn(*shape, vocabulary, device=device, dtype=torch.bfloat16)
    cols = torch.randn(*shape, width, device=device, dtype=torch.bfloat16)
    return [OuterTerm(rows, cols, None if by is None else by.places(rows.shape[:2]))]


def embedding(shape: tuple[int, int], vocabulary: int, width: int, device: str, by: Documents | None) -> list[Factors]:
    torch.manual_seed(2)
    ids = torch.randint(vocabulary, shape, device=device)
    cols = torch.randn(*shape, width, device=device, dtype=torch.bfloat16)
    return [LookupTerm(ids, cols, vocabulary, None if by is None else by.places(ids.shape))]


def tied(shape: tuple[int, int], vocabulary: int, width: int, device: str, by: Documents | None) -> list[Factors]:
    return embedding(shape, vocabulary, width, device, by) + head(shape, vocabulary, width, device, by)


PARAMETERS: dict[str, Callable[..., list[Factors]]] = {"head": head, "embedding": embedding, "tied": tied}


def documents(batch: int, positions: int, device: str) -> Documents:
    """Three of a row, of different lengths, and padding."""
    row = torch.tensor([0] * (positions // 2) + [1] * (positions // 8) + [2] * (positions // 4))
    row = torch.cat([row, torch.full((positions - len(row),), -1)])
    return Documents([row.repeat(batch, 1)], device)


def gradients(term: Factors, by: Documents | None) -> Tensor:
    """[B, R, C], or [P, R, C], in float64."""
    if isinstance(term, LookupTerm):
        rows = torch.nn.functional.one_hot(term.ids, term.num_rows).double()
    else:
        rows = term.rows.double()
    if by is None:
        return rows.mT @ term.cols.double()
    assert term.places is not None
    return term.places.outer(rows, term.cols.double())


def peak(found: list[Factors], device: str) -> int:
    """Bytes that the norms of ``found`` take beside it."""
    with Allocations(device) as allocations:
        held = [value.detach() for term in found for value in vars(term).values() if isinstance(value, Tensor)]
        held += [term.places.ids.detach() for term in found if term.places is not None]
        before = allocations.now
        exact.squared_norms(found)
        return allocations.peak - before


@pytest.mark.parametrize("by_document", [False, True])
@pytest.mark.parametrize("positions", [16, 96])
@pytest.mark.parametrize("kind", PARAMETERS)
def test_memory_is_bounded_and_norms_are_those_of_whole_gradients(
    monkeypatch: pytest.MonkeyPatch, kind: str, positions: int, by_document: bool
) -> None:
    """Few positions: a ghost norm; many: materialised. Whole, a factor in float32 has 32 or 192 times the bound."""
    batch, vocabulary, width, elements = 4, 2048, 40, 1 << 12
    by = documents(batch, positions, "cpu") if by_document else None
    found = PARAMETERS[kind]((batch, positions), vocabulary, width, "cpu", by)
    expected = torch.stack([gradients(term, by) for term in found]).sum(0).square().sum((1, 2))
    torch.testing.assert_close(exact.squared_norms(found).double(), expected, rtol=1e-5, atol=0.0)
    monkeypatch.setattr(exact, "MAX_ELEMENTS", elements)
    monkeypatch.setattr(terms, "MAX_ELEMENTS", elements)
    torch.testing.assert_close(exact.squared_norms(found).double(), expected, rtol=1e-5, atol=0.0)
    assert peak(found, "cpu") < 8 * 4 * elements


@pytest.mark.parametrize("width", [2048, 4096])
@pytest.mark.parametrize("kind", PARAMETERS)
def test_a_vocabulary_of_128_k_takes_384_mib(kind: str, width: int) -> None:
    """On a device without numbers, that multiplies narrow factors to wide products as a GPU does."""
    found = PARAMETERS[kind]((8, 2048), 131072, width, "meta", None)
    assert peak(found, "meta") <= 384 << 20  # the output gradient of the head is 4 GiB


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_wide_product_is_as_exact_as_that_of_wide_factors(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(terms, "MAX_ELEMENTS", 100)
    a, b = torch.randn(3, 7, 50, dtype=dtype), torch.randn(3, 50, 11, dtype=dtype)
    found = bmm_wide(a, b)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), a.double() @ b.double(), rtol=1e-5, atol=1e-5)
    assert bmm_wide(a.double(), b.double()).dtype == torch.float64
    assert bmm_wide(a.to("meta"), b.to("meta")).dtype == torch.float32
