"""Score records are read stretch by stretch: every row once, and few at a time."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from presence_ds.trainer.gain.records import RowGroup, Stretch, cut


def group(first: int, last: int, rows: int, place: int = 0) -> RowGroup:
    return RowGroup(Path("file"), None, place, first, last, rows)


def aligned(stretches: int, per_stretch: int) -> list[RowGroup]:
    """As the ranks of a run write them: all of them collect at the same steps."""
    return [
        group(1 + 10 * index, 10 + 10 * index, 100, place) for index in range(stretches) for place in range(per_stretch)
    ]


def test_row_groups_are_read_once_and_no_more_than_asked_for() -> None:
    found = cut(aligned(12, 2)[::-1], rows=700)
    assert [(stretch.first, stretch.last, stretch.rows) for stretch in found] == [
        (1, 30, 600),
        (31, 60, 600),
        (61, 90, 600),
        (91, 120, 600),
    ]


def test_what_steps_share_is_cut_only_beyond_the_most() -> None:
    together = [group(1, 100, 1000, place) for place in range(8)]
    assert [stretch.rows for stretch in cut(together, rows=10, most=8000)] == [8000]
    pieces = cut([*together, group(101, 110, 5)], rows=10, most=4000)
    assert [(stretch.first, stretch.last) for stretch in pieces] == [(1, 50), (51, 100), (101, 110)]


@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(0, 30), st.integers(1, 50)), min_size=1, max_size=20),
    st.integers(1, 200),
    st.integers(1, 200),
)
def test_every_step_is_in_one_stretch_with_all_that_has_it(
    spans: list[tuple[int, int, int]], rows: int, most: int
) -> None:
    groups = [group(first, first + length, number, place) for place, (first, length, number) in enumerate(spans)]
    found = cut(groups, rows, most)
    assert all(before.last < after.first for before, after in pairwise(found))

    def having(step: int, candidates: list[RowGroup]) -> list[int]:
        return sorted(one.place for one in candidates if one.first <= step <= one.last)

    for step in range(1, 92):
        inside = [stretch for stretch in found if stretch.first <= step <= stretch.last]
        if expected := having(step, groups):
            (stretch,) = inside
            assert having(step, stretch.groups) == expected
    assert isinstance(found[0], Stretch)


@pytest.mark.parametrize("most", [1, 1000])
def test_one_step_is_never_cut(most: int) -> None:
    assert [stretch.rows for stretch in cut([group(5, 5, 300), group(5, 5, 300, 1)], rows=1, most=most)] == [600]
