"""Covering arrays of strength two under constraints that only the program itself knows.

Every pair of values of two factors is to occur in a combination that is accepted. A pair that no accepted combination
has is itself refused, and is shown by a combination that is refused for nothing else. Deterministic: plain greedy
search, with random numbers from a fixed seed.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations, product
from typing import Any

import pytest

Factors = dict[str, list[Any]]  # name: values, the first of which are accepted together
Combination = dict[str, int]  # name: index of its value
Pair = tuple[tuple[str, int], tuple[str, int]]
Accepts = Callable[[Combination], bool]
Array = tuple[list[Combination], dict[Pair, Combination]]

CANDIDATES = 6  # tried for each combination of the array; the one that covers most is taken
RANDOM_TRIES = 300  # completions of a pair before it is taken for refused


def covered(factors: Factors, accepts: Callable[[dict[str, Any]], bool] = lambda _: True) -> list[dict[str, Any]]:
    """Values by name that have every pair that ``accepts``, which is asked with values, allows: cases of a test."""

    def chosen(combination: Combination) -> dict[str, Any]:
        return {name: factors[name][index] for name, index in combination.items()}

    return [chosen(combination) for combination in covering_array(factors, lambda one: accepts(chosen(one)))[0]]


def named(case: dict[str, Any]) -> str:
    """What pytest calls such a case."""
    return "-".join(map(str, case.values()))


def taking_turns(values: Iterable[Any], stages: Sequence[int]) -> list[Any]:
    """Each value with each stage of ZeRO as cases; but for one stage of each value, which take turns, they are long."""
    return [
        pytest.param(value, stage, marks=[] if stage == stages[turn % len(stages)] else pytest.mark.long)
        for turn, value in enumerate(values)
        for stage in stages
    ]


def every_pair(factors: Factors) -> list[Pair]:
    return [
        ((one, i), (other, j))
        for one, other in combinations(factors, 2)
        for i, j in product(range(len(factors[one])), range(len(factors[other])))
    ]


def pairs_of(combination: Combination) -> set[Pair]:
    return set(combinations(combination.items(), 2))


def covering_array(factors: Factors, accepts: Accepts) -> Array:
    """Accepted combinations that have every pair that can be had, and a refused one for every other pair."""
    rng = random.Random(0)
    known: dict[tuple[int, ...], bool] = {}

    def accepted(combination: Combination) -> bool:
        key = tuple(combination.values())
        if key not in known:
            known[key] = accepts(combination)
        return known[key]

    left, array, refused = set(every_pair(factors)), [], {}
    for pair in every_pair(factors):
        if pair not in left:
            continue
        start = next(filter(accepted, completions(factors, pair, rng)), None)
        if start is None:
            refused[pair] = refused_for_this_alone(factors, pair, accepted, rng)
            left.discard(pair)
            continue
        candidates = [_improve(dict(start), pair, factors, left, accepted, rng) for _ in range(CANDIDATES)]
        best = max(candidates, key=lambda candidate: len(pairs_of(candidate) & left))
        left -= pairs_of(best)
        array.append(best)
    return array, refused


def completions(factors: Factors, pair: Pair, rng: random.Random) -> Iterator[Combination]:
    """Combinations with ``pair``: the first values in all other factors, then up to two others, then random ones."""
    base = dict.fromkeys(factors, 0) | dict(pair)
    others = [(name, index) for name in factors if name not in dict(pair) for index in range(1, len(factors[name]))]
    yield base
    for change in others:
        yield base | dict([change])
    for changes in combinations(others, 2):
        yield base | dict(changes)
    for _ in range(RANDOM_TRIES):
        yield {name: rng.randrange(len(values)) for name, values in factors.items()} | dict(pair)


def refused_for_this_alone(factors: Factors, pair: Pair, accepts: Accepts, rng: random.Random) -> Combination:
    """A combination with a refused pair that another value of either factor makes acceptable, or at least of one."""
    of_one = None
    for combination in completions(factors, pair, rng):
        others = ([combination | {name: index} for index in range(len(factors[name]))] for name, _ in pair)
        acceptable = [any(map(accepts, changed)) for changed in others]
        if all(acceptable):
            return combination
        of_one = of_one or (combination if any(acceptable) else None)
    assert of_one is not None, f"{pair} is refused, and no combination shows that it is for this pair"
    return of_one


def _improve(
    combination: Combination, pair: Pair, factors: Factors, left: set[Pair], accepts: Accepts, rng: random.Random
) -> Combination:
    """Change one factor after the other to the accepted value that covers most of what is left."""
    free = [name for name in factors if name not in dict(pair)]
    for _ in range(2):
        rng.shuffle(free)
        for name in free:
            gains = []
            for index in rng.sample(range(len(factors[name])), len(factors[name])):
                changed = combination | {name: index}
                if accepts(changed):
                    gains.append((len(pairs_of(changed) & left), changed))
            combination = max(gains, key=lambda gain: gain[0])[1]
    return combination
