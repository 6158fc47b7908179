"""Samples whose self-influence is among the highest whenever they are seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from presence_ds.trainer.report.plain import plain
from presence_ds.trainer.report.recorded import Recorded
from presence_ds.trainer.report.sample_figures import Extreme
from presence_ds.trainer.samples.sql import records_sql

if TYPE_CHECKING:
    import duckdb

TOP = 0.01  # share of the samples of some steps, that are called extreme
MOST = 50
STEPS = 8


def add_tops(connection: duckdb.DuckDBPyConnection) -> None:
    """Insert into the table ``tops`` the top percent of the table ``chunk``, by n relative to the mean of the step."""
    connection.execute(
        f"""
        insert into tops
        with relative as (select *, n / unit as norm from chunk where n > 0 and unit > 0)
        select source, document_id, "offset", step, norm, weight, loss from relative
        where norm >= (select quantile_disc(norm, {1 - TOP}) from relative)
        """
    )


def extremes_of(connection: duckdb.DuckDBPyConnection, recorded: Recorded) -> list[Extreme]:
    """Those of ``tops`` that are there as often as in all records, at least twice; the most often seen first."""
    rows = connection.execute(
        f"""
        with candidates as (
            select source, document_id, "offset", count(*) as times, avg(norm) as norm, min(norm) as least,
                avg(weight) as weight, avg(loss) as loss, list(step order by step)[:{STEPS}] as steps
            from tops group by all having count(*) >= 2
        ),
        seen as (
            select source, document_id, "offset", count(*) as all_times
            from ({records_sql(recorded.groups, "true")}) semi join candidates using (source, document_id, "offset")
            where counts group by all
        )
        select source, document_id, "offset", times, norm, least, weight, loss, steps
        from candidates join seen using (source, document_id, "offset") where times = all_times
        order by times desc, least desc, source, document_id, "offset" limit {MOST}
        """
    ).fetchall()
    return [
        Extreme(
            source, document, offset, times, plain(norm) or 0.0, plain(least) or 0.0, plain(weight), plain(loss), steps
        )
        for source, document, offset, times, norm, least, weight, loss, steps in rows
    ]
