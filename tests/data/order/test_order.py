"""Every sample once per epoch: over ranks, workers and sources, a resume, and a change of the number of ranks."""

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from presence_ds.data import BatchStream, PackedDataset, build_loader
from presence_ds.data.order.mixture import MixedOrder
from presence_ds.data.order.shuffled import ShuffledOrder
from presence_ds.errors import DataError
from tests.data.samples.samples import documents, packed

NAMES = ["web", "books", "code"]


def streams(
    dataset: PackedDataset, ranks: int, micro_batch_size: int, weights: dict[str, float] | None, **options: Any
) -> list[BatchStream]:
    """The stream of every rank."""
    return [
        BatchStream(
            build_loader(
                dataset,
                micro_batch_size=micro_batch_size,
                rank=rank,
                world_size=ranks,
                weights=weights,
                source_names=NAMES,
                **options,
            )
        )
        for rank in range(ranks)
    ]


def take(ranks: list[BatchStream], micro_steps: int) -> list[str]:
    """The documents of so many micro-steps of every rank."""
    return [document for _ in range(micro_steps) for stream in ranks for document in documents(next(stream))]


def resume(state: dict[str, Any], ranks: list[BatchStream]) -> list[BatchStream]:
    for stream in ranks:
        stream.load_state_dict(state)
    return ranks


def the_state(ranks: list[BatchStream]) -> dict[str, Any]:
    """What every rank has to save, as it comes back from a file."""
    state, *others = [json.loads(json.dumps(stream.state_dict())) for stream in ranks]
    assert others == [state] * len(others)
    return state


def assert_every_epoch_is_whole(taken: list[str], sizes: list[int], mixed: bool) -> None:
    """``taken`` cut into epochs, of each source where they are mixed, has every document once in each."""
    for source, size in enumerate(sizes):
        own = [f"{source}:{number}" for number in range(size)]
        of_source = [document for document in taken if document in own]
        if mixed:
            epochs = [of_source[start : start + size] for start in range(0, len(of_source), size)]
        else:
            epochs = [
                [document for document in taken[start : start + sum(sizes)] if document in own]
                for start in range(0, len(taken) // sum(sizes) * sum(sizes), sum(sizes))
            ]
        whole = epochs if not mixed else epochs[: len(of_source) // size]
        assert all(sorted(epoch) == sorted(own) for epoch in whole)
        for epoch in epochs:
            assert len(set(epoch)) == len(epoch)


SHAPES = st.fixed_dictionaries(
    {
        "sizes": st.lists(st.integers(1, 30), min_size=1, max_size=3),
        "weights": st.none() | st.lists(st.floats(0.01, 100), min_size=3, max_size=3),
        "ranks": st.lists(st.integers(1, 4), min_size=2, max_size=3),
        "micro_batch_sizes": st.lists(st.integers(1, 4), min_size=3, max_size=3),
        "micro_steps": st.lists(st.integers(0, 12), min_size=3, max_size=3),
        "seed": st.integers(0, 2**32),
    }
)


@settings(max_examples=25)
@given(SHAPES)
def test_every_sample_once_per_epoch_over_changes_of_ranks(shape: dict[str, Any]) -> None:
    """Stretches of a run, each resumed on other ranks with other micro-batches."""
    sizes, ranks, micro_batch_sizes = shape["sizes"], shape["ranks"], shape["micro_batch_sizes"]
    assume(sum(sizes) >= max(count * size for count, size in zip(ranks, micro_batch_sizes, strict=False)))
    weights = None if shape["weights"] is None else dict(zip(NAMES[: len(sizes)], shape["weights"], strict=False))
    dataset = packed(sizes)
    taken: list[str] = []
    state = None
    for count, size, micro_steps in zip(ranks, micro_batch_sizes, shape["micro_steps"], strict=False):
        group = streams(dataset, count, size, weights, seed=shape["seed"])
        if state is not None:
            resume(state, group)
        taken += take(group, micro_steps)
        state = the_state(group)
    taken += take(group, 2 * sum(sizes) // (ranks[-1] * size) + 1)
    assert_every_epoch_is_whole(taken, sizes, mixed=weights is not None)
    (alone,) = streams(dataset, 1, 1, weights, seed=shape["seed"])
    assert taken == take([alone], len(taken))


@pytest.mark.parametrize("weights", [None, {"web": 1.0, "books": 2.0, "code": 0.5}], ids=["natural", "weighted"])
@pytest.mark.parametrize("num_workers", [0, 1, 2])
@pytest.mark.parametrize(("before", "after"), [(1, 3), (2, 4), (3, 1), (4, 2)])
def test_every_sample_once_per_epoch_while_workers_prefetch(
    before: int, after: int, num_workers: int, weights: dict[str, float] | None
) -> None:
    """The state is taken when the workers have drawn batches that were not returned yet."""
    sizes = [13, 30, 9]
    dataset = packed(sizes)
    first = streams(dataset, before, 2, weights, num_workers=num_workers)
    taken = take(first, 7)
    drawn = [stream._sampler.position for stream in first]
    assert all(position > stream.position for position, stream in zip(drawn, first, strict=True)) == (num_workers > 0)
    second = resume(the_state(first), streams(dataset, after, 3, weights, num_workers=num_workers))
    taken += take(second, 120 // (3 * after))
    assert_every_epoch_is_whole(taken, sizes, mixed=weights is not None)
    assert taken == take(streams(dataset, 1, 1, weights), len(taken))


@pytest.mark.parametrize("accumulation", [1, 2, 4])
def test_an_optimizer_step_holds_the_same_samples_on_any_number_of_ranks(accumulation: int) -> None:
    dataset = packed([50, 30])
    ranks = 8 // (2 * accumulation)
    group = streams(dataset, ranks, 2, None)
    steps = [set(take(group, accumulation)) for _ in range(30)]
    alone = streams(dataset, 1, 8, None)
    assert steps == [set(take(alone, 1)) for _ in range(30)]


def test_a_mixture_has_its_proportions_at_any_point() -> None:
    """After every block to within one sample, and between two blocks to within chance."""
    weights = {"web": 0.7, "books": 0.299, "code": 0.001}
    order = MixedOrder(packed([500, 100, 10]), NAMES, weights, seed=1)
    counts: Counter[str] = Counter()
    for block in range(50):
        rows = order.draws(np.arange(block * order.block, (block + 1) * order.block)) % 610
        counts.update({"web": (rows < 500).sum(), "books": ((rows >= 500) & (rows < 600)).sum()})
        counts["code"] += (rows >= 600).sum()
        for name, weight in weights.items():
            assert abs(counts[name] - weight * (block + 1) * order.block) <= 1
        halves = np.array_split(rows < 500, 2)
        assert abs(halves[0].mean() - 0.7) < 5 * (0.7 * 0.3 / len(halves[0])) ** 0.5


@given(st.lists(st.floats(1e-5, 1), min_size=1, max_size=3), st.integers(0, 10**12), st.integers(1, 5))
def test_any_position_of_a_mixture_is_reached_directly(weights: list[float], position: int, seed: int) -> None:
    sizes = [7, 11, 5][: len(weights)]
    order = MixedOrder(packed(sizes), NAMES, dict(zip(NAMES, weights, strict=False)), seed)
    before, after = order.epochs(position), order.epochs(position + 500)
    rows = order.draws(np.arange(position, position + 500)) % sum(sizes)
    sources = np.repeat(np.arange(len(sizes)), sizes)[rows]
    for source, name in enumerate(list(before)):
        assert round((after[name] - before[name]) * sizes[source]) == (sources == source).sum()
    assert round(sum(epochs * size for epochs, size in zip(before.values(), sizes, strict=True))) == position


def test_epochs_of_a_source_go_on_from_block_to_block() -> None:
    """Far more samples than a block has, over sources whose epochs end anywhere in it."""
    sizes = [700, 90, 13]
    order = MixedOrder(packed(sizes), NAMES, {"web": 0.6, "books": 0.3, "code": 0.1}, seed=2)
    draws = order.draws(np.arange(6 * order.block + 100)).tolist()
    names = [f"{source}:{number}" for source, size in enumerate(sizes) for number in range(size)]
    assert_every_epoch_is_whole([names[draw % 803] for draw in draws], sizes, mixed=True)
    assert_draws_count_the_epochs(draws, 803)


def assert_draws_count_the_epochs(draws: list[int], size: int) -> None:
    """No draw comes twice, and the n-th time that a row comes it counts n epochs."""
    times: Counter[int] = Counter()
    for draw in draws:
        epoch, row = divmod(draw, size)
        assert epoch == times[row]
        times[row] += 1


def test_a_source_may_lie_in_several_stretches() -> None:
    dataset = packed([6, 4])
    rows = dataset.rows.select([0, 6, 7, 1, 2, 8, 3, 9, 4, 5])
    (stream,) = streams(PackedDataset(rows, "train", dataset.objective), 1, 5, {"web": 1.0, "books": 1.0})
    assert_every_epoch_is_whole(take([stream], 100), [6, 4], mixed=True)


def test_epochs_are_counted() -> None:
    (natural,) = streams(packed([10, 20]), 1, 6, None)
    assert [(next(natural), natural.source_epochs)[1] for _ in range(6)] == [{"": n * 6 / 30} for n in range(1, 7)]
    (mixed,) = streams(packed([10, 20]), 1, 8, {"web": 3.0, "books": 1.0})
    taken = take([mixed], 20)
    of_source = Counter(document[0] for document in taken)
    assert mixed.source_epochs == {"web": of_source["0"] / 10, "books": of_source["1"] / 20}


def test_epochs_differ_and_sources_are_shuffled_differently() -> None:
    draws = ShuffledOrder(1000, seed=0).draws(np.arange(3000))
    assert_draws_count_the_epochs(draws.tolist(), 1000)
    rows = draws.reshape(3, 1000) % 1000
    assert (np.sort(rows) == np.arange(1000)).all()
    assert max((rows[0] == rows[1]).mean(), (rows[1] == rows[2]).mean()) < 0.02
    assert (rows[0] == ShuffledOrder(1000, seed=1).draws(np.arange(1000))).mean() < 0.02
    assert (rows[0] == ShuffledOrder(1000, seed=0, name="web").draws(np.arange(1000))).mean() < 0.02


@pytest.mark.parametrize(
    ("sizes", "options", "message"),
    [
        ([30], {"seed": 4}, "seed = 3 and this run has 4"),
        ([31], {"seed": 3}, "samples = 30 and this run has 31"),
        ([29, 1], {"seed": 3}, "digest of the samples = .* and this run has"),
        ([30], {"seed": 3, "weights": {"web": 1.0}}, "samples = 30 and this run has {'web': 30}"),
    ],
)
def test_the_state_of_another_order_is_refused(sizes: list[int], options: dict[str, Any], message: str) -> None:
    (stream,) = streams(packed([30]), 1, 4, None, seed=3)
    state = the_state([stream])
    (other,) = streams(packed(sizes), 1, 4, options.pop("weights", None), **options)
    with pytest.raises(DataError, match=message):
        other.load_state_dict(state)


def test_the_state_of_other_weights_is_refused() -> None:
    (stream,) = streams(packed([30]), 1, 4, {"web": 1.0})
    (other,) = streams(packed([30]), 1, 4, {"web": 2.0})
    with pytest.raises(DataError, match=r"weights = {'web': 1.0} and this run has {'web': 2.0}"):
        other.load_state_dict(the_state([stream]))


def test_the_state_of_an_earlier_version_is_refused() -> None:
    (stream,) = streams(packed([30]), 1, 4, None)
    with pytest.raises(DataError, match="earlier version"):
        stream.load_state_dict({"epoch": 1, "batches": 3, "order": {"samples": 30}})


def test_a_weighted_source_without_samples_is_refused() -> None:
    with pytest.raises(DataError, match='source "code" has a weight and gave no sample of the train part'):
        streams(packed([10, 10]), 1, 2, dict.fromkeys(NAMES, 1.0))
