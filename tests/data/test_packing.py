import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from presence_ds.data.packing import pack

EOS = 999
documents_strategy = st.lists(st.lists(st.integers(0, 9), max_size=40), max_size=20)


@given(documents=documents_strategy, length=st.integers(1, 16))
def test_samples_concatenate_to_documents_with_eos(documents: list[list[int]], length: int) -> None:
    stream = [token for document in documents for token in [*document, EOS]]
    samples = list(pack(((str(i), tokens) for i, tokens in enumerate(documents)), length, EOS))
    assert len(samples) == len(stream) // length  # only a tail shorter than a sample is dropped
    packed = [int(token) for sample in samples for token in sample.input_ids]
    assert packed == stream[: len(samples) * length]


@given(documents=documents_strategy, length=st.integers(1, 16))
def test_document_and_offset_point_at_the_first_token(documents: list[list[int]], length: int) -> None:
    starts = np.cumsum([0, *(len(document) + 1 for document in documents)])
    samples = pack(((str(i), tokens) for i, tokens in enumerate(documents)), length, EOS)
    for number, sample in enumerate(samples):
        assert starts[int(sample.document_id)] + sample.offset == number * length
        assert sample.offset <= len(documents[int(sample.document_id)])  # at most its EOS


def test_samples_do_not_share_memory() -> None:
    first, second = pack([("a", [1, 2, 3])], 2, EOS)
    assert first.input_ids.tolist() == [1, 2]
    assert second.input_ids.tolist() == [3, EOS]
