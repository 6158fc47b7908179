"""What a rank of a pool does in the tests of trackers."""

import os

from tests.trainer.checkpoint import runs


def train(environment: dict[str, str], *arguments: str) -> str | None:
    """`tests.trainer.checkpoint.runs.train` with these variables, which are taken back."""
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        return runs.train(*arguments)
    finally:
        os.environ.clear()
        os.environ.update(before)
