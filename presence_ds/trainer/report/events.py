"""What happened in a run, from counts and names that change from one logged step to the next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from presence_ds.trainer.report.figures import Event
from presence_ds.trainer.samples.database import quoted

if TYPE_CHECKING:
    import duckdb

MOST = 200  # of a kind; the first are kept
WORDS = {
    "skipped_steps": ("a step was skipped", "{} steps were skipped"),
    "nonfinite_steps": ("a step had samples that were not finite", "{} steps had samples that were not finite"),
    "loss_spikes": ("the loss spiked", "the loss spiked in {} steps"),
    "gradient_spikes": ("the gradient norm spiked", "the gradient norm spiked in {} steps"),
}


def events_of(connection: duckdb.DuckDBPyConnection, counts: Sequence[str], names: Sequence[str]) -> list[Event]:
    """Those of the table ``lines``, by step.

    Args:
        counts: its columns of numbers since the start of the run.
        names: all of its columns.
    """
    found = []
    for name in counts:
        rows = connection.execute(
            f"select step, by_now - before, steps from (select step, steps, {quoted(name)} as by_now, "
            f"coalesce(lag({quoted(name)} ignore nulls) over (order by step), 0) as before from lines) "
            f"where by_now > before order by step limit {MOST}"
        ).fetchall()
        for step, more, steps in rows:
            words = WORDS[name][0] if more == 1 else WORDS[name][1].format(f"{int(more):,}")
            found.append(Event(step, name, words + (f" of the {steps:,} up to here" if steps > 1 else "")))
    rows = connection.execute(
        "select step, stage, before from (select step, stage, lag(stage ignore nulls) over (order by step) as before "
        f"from lines) where stage <> before order by step limit {MOST}"
    ).fetchall()
    found += [Event(step, "stage", f"stage {stage} after {before}") for step, stage, before in rows]
    if "memory/peak(GiB)" in names:  # which only grows while a process lives
        rows = connection.execute(
            'select step from (select step, "memory/peak(GiB)" as peak, lag("memory/peak(GiB)" ignore nulls) over '
            f"(order by step) as before from lines) where peak < before order by step limit {MOST}"
        ).fetchall()
        found += [Event(step, "resume", "the run went on in new processes") for (step,) in rows]
    return sorted(found, key=lambda event: event.step)
