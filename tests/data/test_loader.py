import json
from itertools import islice
from typing import Any

import pytest
import torch

from presence_ds.data import BatchStream, Corpus, SourceConfig, build_loader, mixture_weights
from presence_ds.errors import DataError


def key(batch: dict[str, Any]) -> list[tuple[int, ...]]:
    """What identifies the samples of a batch."""
    return [tuple(row) for row in batch["input_ids"].tolist()]


def make_stream(corpus: Corpus, rank: int, world_size: int, num_workers: int = 0, **fields: Any) -> BatchStream:
    options = {"micro_batch_size": 16, "seed": 3, "rank": rank, "world_size": world_size, "num_workers": num_workers}
    return BatchStream(build_loader(corpus.train, **{**options, **fields}))


def test_batches_are_stacked(corpus: Corpus) -> None:
    batch = next(make_stream(corpus, 0, 1))
    assert batch["input_ids"].shape == batch["labels"].shape == (16, 32)
    assert batch["source_ids"].shape == batch["offsets"].shape == (16,)
    assert {batch[name].dtype for name in ("input_ids", "labels", "source_ids", "offsets")} == {torch.int64}
    assert len(batch["document_ids"]) == 16
    names = [corpus.source_names[index] for index in batch["source_ids"]]
    assert all(name in ("shuffled", document[0]) for name, document in zip(names, batch["document_ids"], strict=True))


def test_a_seed_gives_one_order(corpus: Corpus) -> None:
    batches = [key(batch) for batch in islice(make_stream(corpus, 0, 2), 20)]
    assert batches == [key(batch) for batch in islice(make_stream(corpus, 0, 2), 20)]
    assert batches != [key(batch) for batch in islice(make_stream(corpus, 0, 2, seed=4), 20)]


@pytest.mark.parametrize(("world_size", "num_workers", "step"), [(1, 0, 1), (2, 0, 1), (2, 2, 5)])
def test_resuming_at_any_batch_gives_the_same_rest(
    corpus: Corpus, world_size: int, num_workers: int, step: int
) -> None:
    for rank in range(world_size):
        length = len(corpus.train) // (16 * world_size) + 1
        total = 2 * length + 3
        reference = [key(batch) for batch in islice(make_stream(corpus, rank, world_size), total)]
        stream = make_stream(corpus, rank, world_size, num_workers)
        for taken in range(total + 1):
            if taken % step == 0 or taken % length == 0:
                state = stream.state_dict()
                resumed = make_stream(corpus, rank, world_size, num_workers)
                resumed.load_state_dict(state)
                assert resumed.state_dict() == state
                assert [key(batch) for batch in islice(resumed, min(3, total - taken))] == reference[taken : taken + 3]
            if taken < total:
                assert key(next(stream)) == reference[taken]


def test_resumed_stream_goes_on_to_the_end(corpus: Corpus) -> None:
    stream = make_stream(corpus, 1, 2)
    reference = [key(batch) for batch in islice(make_stream(corpus, 1, 2), 30)]
    for _ in range(7):
        next(stream)
    for num_workers in (0, 2):  # interrupted, and again before the first batch, to go on with workers
        state = json.loads(json.dumps(stream.state_dict()))
        assert len(json.dumps(state)) < 1000
        stream = make_stream(corpus, 1, 2, num_workers)
        stream.load_state_dict(state)
    assert [key(batch) for batch in islice(stream, 23)] == reference[7:]


def test_too_few_samples_for_every_rank(corpus: Corpus) -> None:
    samples = len(corpus.validation)
    with pytest.raises(DataError, match=f"the validation part has {samples} samples, fewer than the {2 * samples}"):
        build_loader(corpus.validation, micro_batch_size=samples, rank=0, world_size=2)


def test_the_global_generator_is_left_alone(corpus: Corpus) -> None:
    before = torch.random.get_rng_state()
    for num_workers in (0, 1):
        next(make_stream(corpus, 0, 1, num_workers))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_prepared_corpus_is_mixed_by_weights_noise_included(corpus: Corpus) -> None:
    weights = mixture_weights(
        [SourceConfig("a", "a", weight=3.0), SourceConfig("b", "b", weight=1.0)], {"shuffled": 0.2}
    )
    assert weights == {"a": 3.0, "b": 1.0, "shuffled": 1.0}
    loader = build_loader(
        corpus.train,
        micro_batch_size=16,
        rank=0,
        world_size=1,
        weights=weights,
        source_names=corpus.source_names,
    )
    counts = sum(torch.bincount(batch["source_ids"], minlength=3) for batch in islice(loader, 5 * 1024 // 16))
    found = dict(zip(corpus.source_names, counts.tolist(), strict=True))
    assert all(abs(found[name] - 1024 * weight) <= 1 for name, weight in weights.items())
