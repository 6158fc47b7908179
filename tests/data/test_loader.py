import json
from itertools import islice
from typing import Any

import pytest
import torch

from presence_ds.data import BatchStream, Corpus, build_loader
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


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("shuffle", [True, False])
def test_ranks_share_an_epoch_without_repeats(corpus: Corpus, world_size: int, shuffle: bool) -> None:
    seen = []
    for rank in range(world_size):
        loader = build_loader(corpus.train, micro_batch_size=4, rank=rank, world_size=world_size, shuffle=shuffle)
        seen.append([sample for batch in loader for sample in key(batch)])
    assert len({len(samples) for samples in seen}) == 1
    together = [sample for samples in seen for sample in samples]
    assert len(set(together)) == len(together) == len(corpus.train) // (4 * world_size) * 4 * world_size


def test_epochs_differ_and_are_repeatable(corpus: Corpus) -> None:
    length = len(make_stream(corpus, 0, 2).loader)
    batches = [key(batch) for batch in islice(make_stream(corpus, 0, 2), 3 * length)]
    assert batches == [key(batch) for batch in islice(make_stream(corpus, 0, 2), 3 * length)]
    epochs = [batches[start : start + length] for start in range(0, 3 * length, length)]
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert batches != [key(batch) for batch in islice(make_stream(corpus, 0, 2, seed=4), 3 * length)]


@pytest.mark.parametrize(("world_size", "num_workers", "step"), [(1, 0, 1), (2, 0, 1), (2, 2, 5)])
def test_resuming_at_any_batch_gives_the_same_rest(
    corpus: Corpus, world_size: int, num_workers: int, step: int
) -> None:
    for rank in range(world_size):
        length = len(make_stream(corpus, rank, world_size).loader)
        total = 2 * length + 3
        reference = [key(batch) for batch in islice(make_stream(corpus, rank, world_size), total)]
        stream = make_stream(corpus, rank, world_size, num_workers)
        for taken in range(total + 1):
            if taken % step == 0 or taken % length == 0:
                state = stream.state_dict()
                resumed = make_stream(corpus, rank, world_size, num_workers)
                resumed.load_state_dict(state)
                assert resumed.state_dict()["epoch"] == state["epoch"]
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


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"micro_batch_size": 8}, "micro_batch_size = 16 and this run has 8"),
        ({"seed": 4}, "seed = 3 and this run has 4"),
        ({"world_size": 2}, "ranks = 1 and this run has 2"),
    ],
)
def test_state_of_another_order_is_refused(corpus: Corpus, fields: dict[str, int], message: str) -> None:
    state = make_stream(corpus, 0, 1).state_dict()
    other = make_stream(corpus, **{"rank": 0, "world_size": 1, **fields})
    with pytest.raises(DataError, match=message):
        other.load_state_dict(state)


def test_too_few_samples_for_every_rank(corpus: Corpus) -> None:
    samples = len(corpus.validation)
    with pytest.raises(DataError, match=f"the validation part has {samples} samples, fewer than the {2 * samples}"):
        build_loader(corpus.validation, micro_batch_size=samples, rank=0, world_size=2)


def test_loader_can_be_iterated_again_and_leaves_the_global_generator_alone(corpus: Corpus) -> None:
    before = torch.random.get_rng_state()
    loader = build_loader(corpus.validation, micro_batch_size=4, rank=0, world_size=1, shuffle=False)
    first = [key(batch) for batch in loader]
    next(iter(loader))  # left in the middle
    assert [key(batch) for batch in loader] == first
    assert torch.equal(torch.random.get_rng_state(), before)
