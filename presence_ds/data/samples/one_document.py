"""Packing ``document``: one document to a sample, which goes on in further samples where it is longer."""

from collections.abc import Iterable, Iterator

from presence_ds.data.samples.packed import PackedSample, Tokens, with_eos


def one_document_per_sample(
    documents: Iterable[tuple[str, Tokens]], row_length: int, eos_id: int
) -> Iterator[PackedSample]:
    """Cut every document (id, tokens), with its EOS, into samples of ``row_length`` tokens and a last one of the rest.

    A rest of one token has nothing to predict in a sample of its own: it takes the token before it along, or is dropped
    where ``row_length`` is 2. A document that is no more than its EOS is dropped.
    """
    for document_id, tokens in documents:
        ids = with_eos(tokens, eos_id)
        start = 0
        while len(ids) - start > 1:
            left = len(ids) - start
            short = left == row_length + 1 and row_length > 2
            end = start + (row_length - 1 if short else min(row_length, left))
            yield PackedSample(ids[start:end], document_id, start)
            start = end
