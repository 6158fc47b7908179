"""Random combinations of options: each trains through the whole trainer and resumes, or is refused in one line.

    python -m tests.soak.combinations --seed 0 --count 200

Where `tests.combinations` has every pair of values once, these are combinations of any number of them, each with what
a run of that test has: all callbacks, two logged steps, checkpoints, the second step again from the first one's
checkpoint to the bit, and the summary. Prints each combination and ends with the counts; exit status 1 if any failed.
"""

import argparse
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.combinations.covering import Combination
from tests.combinations.factors import TRAINER, describe, refusal, value
from tests.combinations.trainer_runs import TrainerRuns
from tests.conftest import Pools

SHARE_OF_FIRST = 0.4  # of the values, which go together: with all values alike nine in ten combinations are refused


def draw(rng: random.Random) -> Combination:
    """A combination of which two in five are accepted."""
    return {
        name: 0 if rng.random() < SHARE_OF_FIRST else rng.randrange(len(values)) for name, values in TRAINER.items()
    }


def try_out(runs: TrainerRuns, pools: Pools, combination: Combination) -> str:
    """``accepted`` or ``refused``.

    Raises:
        AssertionError: neither in the way it should be.
    """
    expected = refusal(TRAINER, combination)
    if expected is None:
        runs.run(pools.get(value(TRAINER, combination, "ranks")), TRAINER, combination)
        return "accepted"
    said = runs.refused(TRAINER, combination)
    assert said == f"presence: error: {expected}\n", said
    return "refused"


def main() -> None:
    """See the module's documentation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=200)
    arguments = parser.parse_args()
    rng, done, pools = random.Random(arguments.seed), Counter[str](), Pools()
    with tempfile.TemporaryDirectory() as folder:
        runs = TrainerRuns(Path(folder))
        runs.prepare()
        try:
            for number in range(1, arguments.count + 1):
                combination = draw(rng)
                try:
                    outcome = try_out(runs, pools, combination)
                except (AssertionError, TimeoutError) as error:
                    outcome = "failed"
                    print(error, file=sys.stderr, flush=True)
                done[outcome] += 1
                print(f"{number:4d} {outcome}: {describe(TRAINER, combination)}", flush=True)
        finally:
            pools.close()
    print(f"{done['accepted']} accepted, {done['refused']} refused, {done['failed']} failed")
    sys.exit(1 if done["failed"] else 0)


if __name__ == "__main__":
    main()
