"""Scoring on every rank of a pool, without a launcher, and what can happen to it."""

import os
import signal
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from presence_ds.commands import score as command
from presence_ds.commands.recipe_arguments import read_recipe
from presence_ds.errors import PresenceError
from presence_ds.trainer.ranks.stop_signals import StopSignals
from presence_ds.trainer.scoring import model_scores, shard
from presence_ds.trainer.scoring.run import score_on
from tests.trainer.checkpoint.runs import pool_ranks, shown

make_parser = cache(command.make_parser)  # one for all runs of a process


def score(
    *arguments: str, stop_at: int | None = None, dies_at: int | None = None, saves: float = 300.0
) -> dict[str, Any]:
    """``presence score ARGUMENTS`` on this rank: the message of the error that ended it, if any, and what was shown.

    With ``stop_at`` rank 0 gets a signal when so many files are written; with ``dies_at`` the run ends there as a kill
    would end it, in the middle of writing the next file. What is scored is saved every ``saves`` seconds.
    """
    parser = make_parser()
    parsed = parser.parse_args([*map(str, arguments)])
    recipe, recipe_file = read_recipe(parser, parsed)
    write, seconds, written = shard.write_table, model_scores.SAVE_SECONDS, 0

    def disturbed(table: pa.Table, path: Path) -> None:
        nonlocal written
        if written == dies_at:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_name(f".{path.name}.0.partial").write_bytes(b"PAR1")
            raise OSError(5, "killed", str(path))
        write(table, path)
        written += 1
        if written == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    shard.write_table, model_scores.SAVE_SECONDS = disturbed, saves
    error = None
    with shown() as output:
        try:
            with StopSignals(recipe.stop) as signals:
                score_on(pool_ranks(), signals, recipe, recipe_file, command.read_request(parsed))
        except PresenceError as raised:
            error = str(raised)
        finally:
            shard.write_table, model_scores.SAVE_SECONDS = write, seconds
            for name in recipe.stop.signals:
                signal.signal(getattr(signal, name), signal.SIG_DFL)
        text = output()
    return {"error": error, "output": text}


def read(folder: Path) -> pa.Table:
    """All files of a scores folder, which have to be in order."""
    return pa.concat_tables([pq.read_table(file) for file in sorted(folder.glob("rows-*.parquet"))])
