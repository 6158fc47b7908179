from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from presence_ds.data.order.permutation import Permutation


def images(size: int, seed: int = 0, key: str = "") -> list[int]:
    return Permutation(size, seed, "test", key)(np.arange(size)).tolist()


@given(st.integers(1, 3000), st.integers(0, 2**63))
def test_every_element_comes_once(size: int, seed: int) -> None:
    assert sorted(images(size, seed)) == list(range(size))


@given(st.integers(2, 2**63 - 1), st.integers(0, 1000))
def test_entries_of_a_huge_permutation_are_distinct_and_in_range(size: int, seed: int) -> None:
    indices = np.unique(np.random.default_rng(seed).integers(0, size, 1000))
    found = Permutation(size, seed, "test", "")(indices)
    assert found.min() >= 0
    assert found.max() < size
    assert len(np.unique(found)) == len(indices)


def test_entries_do_not_depend_on_what_is_asked_with_them() -> None:
    whole = images(1000)
    assert [Permutation(1000, 0, "test", "")(np.array([index])).item() for index in range(1000)] == whole


def test_the_arithmetic_stays_as_it_is() -> None:
    """A checkpoint of an earlier version is resumed in the order it was begun in."""
    assert images(10) == [0, 1, 6, 5, 3, 4, 7, 9, 8, 2]
    huge = Permutation(10**15, 7, "order", "web\0" + "3")
    assert huge(np.array([0, 1, 10**15 - 1])).tolist() == [24617108730890, 362462942076089, 50231473883151]


@pytest.mark.parametrize("size", [2, 3, 5])
def test_all_permutations_of_few_elements_are_as_likely(size: int) -> None:
    draws = 4000
    counts = Counter(tuple(images(size, seed)) for seed in range(draws))
    expected = draws / len(list(permutations(range(size))))
    chi_square = sum((counts[order] - expected) ** 2 / expected for order in permutations(range(size)))
    degrees = len(list(permutations(range(size)))) - 1
    assert chi_square < degrees + 5 * (2 * degrees) ** 0.5


@pytest.mark.parametrize("size", [100, 4096, 100_003])
def test_neighbours_are_sent_to_unrelated_places(size: int) -> None:
    """Images of neighbours, and of the same element in another epoch, have the correlation of chance."""
    found = np.array([images(size, seed) for seed in range(200_000 // size + 1)], dtype=float)
    others = np.array([images(size, seed, "1") for seed in range(200_000 // size + 1)], dtype=float)
    bound = 5 / found.size**0.5
    assert abs(np.corrcoef(found[:, :-1].ravel(), found[:, 1:].ravel())[0, 1]) < bound + 1 / size
    assert abs(np.corrcoef(found.ravel(), others.ravel())[0, 1]) < bound
    steps = np.diff(found, axis=1) % size  # the distance from one to the next is uniform too
    counts = np.histogram(steps, bins=16, range=(0, size))[0]
    assert abs(counts / counts.sum() - 1 / 16).max() < 5 * (1 / 16 / counts.sum()) ** 0.5 + 1 / size
