"""What moved a step: the samples with the largest share of its update."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from presence_ds.trainer.report.choosing import Chosen
from presence_ds.trainer.report.plain import plain
from presence_ds.trainer.report.recorded import Recorded, samples_sql
from presence_ds.trainer.report.sample_figures import MovedSample, MovedStep

if TYPE_CHECKING:
    import duckdb

MOST = 8  # samples of a step


def moved_steps(connection: duckdb.DuckDBPyConnection, recorded: Recorded, chosen: Sequence[Chosen]) -> list[MovedStep]:
    """Of the ``chosen`` steps that there are records of, and something is known of their update; by step."""
    found = []
    for step, why, words in sorted(chosen):
        groups = recorded.inside(step, step)
        if not groups:
            continue
        rows = connection.execute(
            f"""
            select source, document_id, "offset", share, weight, n / nullif(unit, 0), a / nullif(unit, 0), loss,
                step_loss, number, aligned
            from ({samples_sql(groups, f"step = {step}")})
            where share is not null order by abs(share) desc, source, document_id, "offset" limit {MOST}
            """
        ).fetchall()
        if rows:
            *_, loss, number, aligned = rows[0]
            samples = [
                MovedSample(source, document, offset, round(share, 6), plain(weight), plain(n), plain(a), plain(of))
                for source, document, offset, share, weight, n, a, of, *_ in rows
            ]
            by = "alignment" if aligned else "norm"
            found.append(MovedStep(step, plain(loss), why, words, number, by, samples))
    return found
