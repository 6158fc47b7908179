from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from presence_ds.data.samples.packing import (
    BUFFER_ROWS,
    PACKINGS,
    PackedSample,
    best_fit,
    concat,
    one_document_per_sample,
)

EOS = 999
Documents = list[list[int]]
documents_strategy = st.lists(st.lists(st.integers(0, 9), max_size=40), max_size=20)


def named(documents: Documents) -> Iterator[tuple[str, list[int]]]:
    return ((str(index), tokens) for index, tokens in enumerate(documents))


def placed(samples: list[PackedSample]) -> dict[tuple[int, int], int]:
    """Tokens by document and position, as the samples state them; none may come twice."""
    found = {}
    for sample in samples:
        pieces = sample.pieces or ((sample.document_id, sample.offset, len(sample.input_ids)),)
        assert pieces[0][:2] == (sample.document_id, sample.offset)
        tokens = iter(sample.input_ids.tolist())
        for document_id, offset, length in pieces:
            for position in range(offset, offset + length):
                assert (int(document_id), position) not in found
                found[int(document_id), position] = next(tokens)
        assert next(tokens, None) is None
    return found


@given(documents=documents_strategy, length=st.integers(1, 16))
def test_samples_concatenate_to_documents_with_eos(documents: Documents, length: int) -> None:
    stream = [token for document in documents for token in [*document, EOS]]
    samples = list(concat(named(documents), length, EOS))
    assert len(samples) == len(stream) // length  # only a tail shorter than a sample is dropped
    packed = [int(token) for sample in samples for token in sample.input_ids]
    assert packed == stream[: len(samples) * length]


@given(documents=documents_strategy, length=st.integers(1, 16))
def test_document_and_offset_point_at_the_first_token(documents: Documents, length: int) -> None:
    starts = np.cumsum([0, *(len(document) + 1 for document in documents)])
    samples = list(concat(named(documents), length, EOS))
    placed(samples)
    for number, sample in enumerate(samples):
        assert starts[int(sample.document_id)] + sample.offset == number * length
        assert sample.offset <= len(documents[int(sample.document_id)])  # at most its EOS


@pytest.mark.parametrize("packing", ["best_fit", "document"])
@given(documents=documents_strategy, length=st.integers(2, 16))
@example(documents=[[], [1] * 4], length=4)  # a document of its EOS alone, and a rest of one token
def test_every_token_is_at_the_stated_place(packing: str, documents: Documents, length: int) -> None:
    samples = list(PACKINGS[packing](named(documents), length, EOS))
    assert all(1 < len(sample.input_ids) <= length for sample in samples)
    tokens = {
        (index, position): token
        for index, document in enumerate(documents)
        for position, token in enumerate([*document, EOS])
    }
    found = placed(samples)
    assert found.items() <= tokens.items()
    dropped = len(tokens) - len(found)
    if packing == "best_fit":
        assert dropped <= 1  # two single tokens would share a sample
    else:
        alone = [document for document in documents if not document or (length == 2 and len(document) % 2 == 0)]
        assert dropped == len(alone)


@given(documents=documents_strategy, length=st.integers(2, 16))
def test_best_fit_cuts_only_what_is_longer_than_a_sample(documents: Documents, length: int) -> None:
    samples = list(best_fit(named(documents), length, EOS))
    for sample in samples:
        for piece in sample.pieces:
            total = len(documents[int(piece.document_id)]) + 1
            assert piece.offset % length == 0
            assert piece.length == min(length, total - piece.offset)
    rooms = sorted(length - len(sample.input_ids) for sample in samples)
    assert len(rooms) < 2 or rooms[-1] + rooms[-2] < length  # no two samples would fit into one


def test_best_fit_wastes_little_and_holds_little_back() -> None:
    generator = np.random.default_rng(0)
    lengths = generator.integers(10, 700, 4000).tolist()
    documents = ((str(number), [1] * length) for number, length in enumerate(lengths))
    samples = list(best_fit(documents, 512, EOS, buffer_tokens=0))
    tokens = sum(lengths) + len(lengths)
    assert sum(len(sample.input_ids) for sample in samples) == tokens
    assert tokens / (512 * len(samples)) > 0.97
    read = 0

    def counted() -> Iterator[tuple[str, list[int]]]:
        nonlocal read
        for number in range(10_000):
            read += 101
            yield str(number), [1] * 100

    next(best_fit(counted(), 512, EOS, buffer_tokens=0))
    assert read <= (BUFFER_ROWS + 1) * 512


def test_one_document_per_sample_goes_on_in_the_next() -> None:
    samples = list(one_document_per_sample(iter([("a", [1, 2, 3, 4]), ("b", [5]), ("c", [])]), 4, EOS))
    assert [(s.document_id, s.offset, s.input_ids.tolist()) for s in samples] == [
        ("a", 0, [1, 2, 3]),
        ("a", 3, [4, EOS]),
        ("b", 0, [5, EOS]),
    ]


def test_samples_do_not_share_memory() -> None:
    first, second = concat([("a", [1, 2, 3])], 2, EOS)
    assert first.input_ids.tolist() == [1, 2]
    assert second.input_ids.tolist() == [3, EOS]
