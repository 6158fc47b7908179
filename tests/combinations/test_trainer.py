"""Every option with every other one: through the whole trainer, or refused in one line."""

import pytest

from tests.combinations.covering import Array, covering_array, every_pair, pairs_of
from tests.combinations.factors import TRAINER, accepts, describe, refusal, value
from tests.combinations.trainer_runs import TrainerRuns
from tests.conftest import Pools


@pytest.fixture(scope="module")
def array() -> Array:
    return covering_array(TRAINER, accepts(TRAINER))


@pytest.fixture(scope="module")
def trainer_runs(tmp_path_factory: pytest.TempPathFactory) -> TrainerRuns:
    runs = TrainerRuns(tmp_path_factory.mktemp("combinations"))
    runs.prepare()
    return runs


def test_every_pair_is_accepted_or_refused(array: Array) -> None:
    accepted, refused = array
    assert set().union(*map(pairs_of, accepted)) | refused.keys() == set(every_pair(TRAINER))


@pytest.mark.long
@pytest.mark.parametrize("ranks", [1, 2])
def test_what_is_accepted_trains_and_resumes(ranks: int, array: Array, trainer_runs: TrainerRuns, pools: Pools) -> None:
    mine = [combination for combination in array[0] if value(TRAINER, combination, "ranks") == ranks]
    assert mine
    for index, combination in enumerate(mine):
        more = {"wandb": {"enabled": index == 0, "mode": "offline", "table_every": 1}}  # takes seconds
        try:
            trainer_runs.run(pools.get(ranks), TRAINER, combination, **more)
        except AssertionError as error:
            raise AssertionError(describe(TRAINER, combination)) from error


def test_what_is_refused_is_refused_in_one_line(array: Array, trainer_runs: TrainerRuns) -> None:
    for combination in array[1].values():
        line = trainer_runs.refused(TRAINER, combination)
        assert line == f"presence: error: {refusal(TRAINER, combination)}\n"
        assert line.startswith("presence: error: presence.")


def test_the_array_has_every_pair_of_a_constrained_example() -> None:
    """Two pairs cannot be had: one by itself, one for what a third factor would have to be."""
    factors = {name: list(range(3)) for name in "abcd"}

    def accepts(combination: dict[str, int]) -> bool:
        one, other, third, _ = combination.values()
        return (one, other) != (1, 2) and (other != 1 or third == 0)

    accepted, refused = covering_array(factors, accepts)
    assert all(map(accepts, accepted))
    assert not any(map(accepts, refused.values()))
    expected = {(("a", 1), ("b", 2)), (("b", 1), ("c", 1)), (("b", 1), ("c", 2))}
    assert refused.keys() == expected
    assert set().union(*map(pairs_of, accepted)) == set(every_pair(factors)) - expected
