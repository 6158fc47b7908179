"""Which samples a rule keeps, against a plain loop over the samples."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from presence_ds.errors import ConfigError
from presence_ds.trainer.scores.rule import KEPT, REASONS, Rule, choose, divide, ranks_within


def plainly(rule: Rule, samples: list[dict[str, Any]]) -> set[int]:
    """Places of the samples that are kept: one after the other, from the first."""
    left = [one for one in samples if not one["dropped"] and one["counted"] and one["passing"]]
    left.sort(key=lambda one: (-one["score"] if rule.reverse else one["score"], one["place"]))
    if rule.max_per_document is not None:
        taken: dict[int, int] = {}
        capped = []
        for one in left:
            taken[one["document"]] = taken.get(one["document"], 0) + 1
            if taken[one["document"]] <= rule.max_per_document:
                capped.append(one)
        left = capped
    if isinstance(rule.keep, float):
        kept = []
        for group in {one["group"] for one in left}:
            own = [one for one in left if one["group"] == group]
            kept += own[: max(1, round(rule.keep * len(own)))]
        left = kept
    return {one["place"] for one in left}


SAMPLE = st.fixed_dictionaries(
    {
        "score": st.sampled_from([0.0, 0.5, 1.0, 2.0, 1e30]),  # with ties
        "group": st.integers(0, 2),
        "document": st.integers(0, 4),
        "counted": st.booleans(),
        "passing": st.booleans(),
        "dropped": st.booleans(),
    }
)


@given(
    samples=st.lists(SAMPLE, min_size=1, max_size=40),
    keep=st.none() | st.floats(0.01, 0.99),
    reverse=st.booleans(),
    most=st.none() | st.integers(1, 3),
)
def test_what_is_kept(samples: list[dict[str, Any]], keep: float | None, reverse: bool, most: int | None) -> None:
    rule = Rule(keep=keep, reverse=reverse, max_per_document=most)
    columns = {name: np.array([one[name] for one in samples]) for name in samples[0]}
    reasons = choose(
        rule,
        np.where(columns["counted"], columns["score"], np.nan).astype(np.float32),
        columns["group"].astype(np.int32),
        counted=columns["counted"],
        passing=columns["passing"],
        documents=columns["document"],
        dropped=columns["dropped"],
    )
    placed = [one | {"place": place} for place, one in enumerate(samples)]
    assert set(np.flatnonzero(reasons == KEPT).tolist()) == plainly(rule, placed)
    for place, reason in enumerate(reasons.tolist()):
        first = {"verdict": samples[place]["dropped"], "no score": not samples[place]["counted"]}
        first["where"] = not samples[place]["passing"]
        expected = next((name for name, is_so in first.items() if is_so), None)
        assert expected is None or REASONS[reason] == expected


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=30))
def test_ranks(pairs: list[tuple[int, int]]) -> None:
    groups, values = (np.array([pair[i] for pair in pairs], kind) for i, kind in ((0, np.int32), (1, np.float32)))
    expected = [
        sum(group == own and (value, at) < (mine, place) for at, (group, value) in enumerate(pairs))
        for place, (own, mine) in enumerate(pairs)
    ]
    assert ranks_within(groups, values).tolist() == expected


@given(sizes=st.lists(st.integers(0, 50), min_size=1, max_size=6), part=st.floats(0, 1))
def test_a_number_is_divided(sizes: list[int], part: float) -> None:
    """All of it, nobody more than there are, nobody nothing, and within one of the proportion but for that."""
    total, groups = sum(sizes), sum(size > 0 for size in sizes)
    keep = max(1, round(part * total))
    if keep > total or keep < groups:
        with pytest.raises(ConfigError, match=rf"keep is {keep}"):
            divide(keep, sizes)
        return
    quotas = divide(keep, sizes)
    assert sum(quotas) == keep
    for quota, size in zip(quotas, sizes, strict=True):
        assert min(size, 1) <= quota <= size
        if all(keep * size >= total for size in sizes if size):
            assert abs(quota - keep * size / total) < 1


def test_a_share_leaves_nobody_out() -> None:
    assert divide(0.1, [100, 3, 0]) == [10, 1, 0]
    assert divide(0.99, [100, 3]) == [99, 3]


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (Rule(keep=0.0), "keep is 0.0"),
        (Rule(keep=1.0), "keep is 1.0"),
        (Rule(keep=0), "keep is 0"),
        (Rule(keep=-5), "keep is -5"),
        (Rule(keep=float("nan")), "keep is nan"),
        (Rule(keep=1e6), "keep is 1000000.0: it must be a whole number"),
        (Rule(keep=3, max_per_document=0), "max_per_document is 0"),
        (Rule(where="loss < 3", by="source"), "by is source without keep"),
        (Rule(where="loss < 3", reverse=True), "reverse is true without keep"),
    ],
)
def test_rules_that_cannot_be_followed(rule: Rule, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        rule.validate()
    assert words in str(caught.value)
