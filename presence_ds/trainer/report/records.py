"""Score records → figures of sources, distributions, the plane of norm and alignment, and what stands out.

Records are read a bin of steps at a time, so that memory does not grow with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from presence_ds.trainer.report.choosing import Chosen, choose
from presence_ds.trainer.report.extremes import add_tops, extremes_of
from presence_ds.trainer.report.moved import moved_steps
from presence_ds.trainer.report.plain import plain, plain_list
from presence_ds.trainer.report.plane import LOOKED_AT, PlaneSums
from presence_ds.trainer.report.ranges import MOST_RECORDS, ranges_of
from presence_ds.trainer.report.recorded import Recorded, find_recorded, samples_sql, without_damage
from presence_ds.trainer.report.sample_figures import Extreme, MovedStep, Plane, Quantiles, SourceFigures
from presence_ds.trainer.samples.database import database

if TYPE_CHECKING:
    import duckdb

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
MOST_SOURCES = 200


@dataclass(frozen=True)
class RecordFigures:
    """What the records tell of a run; as of `RunFigures`.

    Attributes:
        effective_share: mean over steps of the effective sample size by samples.
    """

    records: int = 0
    records_share: float = 0.0
    sources: list[SourceFigures] = field(default_factory=list)
    self_influence: Quantiles | None = None
    weight: Quantiles | None = None
    plane: Plane | None = None
    moved: list[MovedStep] = field(default_factory=list)
    extremes: list[Extreme] = field(default_factory=list)
    effective_share: float | None = None
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_records(folder: Path, chosen: Sequence[Chosen] = (), *, most: int = MOST_RECORDS) -> RecordFigures:
    """The figures of the records in ``folder``; where there are none, or they cannot be read, what is missing.

    Args:
        chosen: steps to look at, from the metrics, where these have more steps than are read here.
        most: records that are read; of more a sample.
    """
    import duckdb

    recorded = find_recorded(folder)
    if not recorded.groups:
        told = recorded.missing or [
            "There are no score records, and so no distributions, no plane and no samples that stand out: they come "
            "with a checkpoint, where logging.score_records is true."
        ]
        return RecordFigures(missing=told)
    try:
        with database() as connection:
            return _figures(connection, recorded, chosen, most)
    except (duckdb.Error, UnicodeError):  # the latter of names that are not UTF-8
        pass
    try:
        with database() as connection:
            whole = without_damage(connection, recorded)
            if whole.groups:
                return _figures(connection, whole, chosen, most)
            return RecordFigures(missing=whole.missing)
    except (duckdb.Error, UnicodeError) as error:
        why = " ".join(str(error).split())[:300]
        return RecordFigures(missing=[*recorded.missing, f"Score records cannot be read ({why})."])


def _figures(
    connection: duckdb.DuckDBPyConnection, recorded: Recorded, chosen: Sequence[Chosen], most: int
) -> RecordFigures:
    ranges = ranges_of(recorded, most)
    missing, notes = _told(recorded, ranges.share)
    plane = PlaneSums(connection)
    for first, last in ranges_of(recorded, LOOKED_AT).stretches:
        if _read(connection, recorded, first, last):
            plane.look()
    quantiles: list[tuple[Any, ...]] = []
    _create(connection)
    for number, (first, last) in enumerate(ranges.stretches):
        if not _read(connection, recorded, first, last):
            continue
        connection.execute(
            f"insert into sums select {number}, source, count(*), sum(weight), count(share), sum(share), count(n), "
            f"sum(n), sum(loss) from chunk group by source"
        )
        connection.execute(
            "insert into steps select step, any_value(step_loss), any_value(number), any_value(step_share) from chunk "
            "group by step"
        )
        if (row := _quantiles(connection)) is not None:
            quantiles.append((last, *row))
        plane.add(number)
        if ranges.share == 1.0:
            add_tops(connection)
    row = connection.execute("select sum(number), avg(step_share) from steps").fetchone()
    if row is None or row[0] is None:
        return RecordFigures(
            missing=[*missing, "None of the recorded samples counts: see has_targets, loss and weight."]
        )
    if ranges.share == 1.0 or not chosen:
        own = choose(connection, "select step, step_loss as loss from steps")
        chosen = [*own, *(one for one in chosen if one.why == "spike" and one.step not in {two.step for two in own})]
    return RecordFigures(
        records=recorded.rows,
        records_share=ranges.share,
        sources=_sources(connection),
        self_influence=_told_quantiles(quantiles, 1),
        weight=_told_quantiles(quantiles, 1 + len(QUANTILES)),
        plane=plane.figures(),
        moved=moved_steps(connection, recorded, chosen),
        extremes=extremes_of(connection, recorded) if ranges.share == 1.0 else [],
        effective_share=plain(row[1]),
        missing=missing,
        notes=notes,
    )


def _told(recorded: Recorded, share: float) -> tuple[list[str], list[str]]:
    """What is missing, and notes."""
    missing, notes = list(recorded.missing), []
    if "self_influence" not in recorded.columns:
        missing.append("There is no self-influence in the records, and so no plane.")
    elif "alignment" not in recorded.columns:
        missing.append("There are no alignments in the records, as an older version wrote them, and so no plane.")
    if share < 1.0:
        notes.append(
            f"Of {recorded.rows:,} score records about {share:.2%} were read, all of the samples of some steps that "
            f"are spread over the run: what is said of samples is of these."
        )
        missing.append("Samples that are extreme in every epoch are not looked for among so many records.")
    return missing, notes


def _read(connection: duckdb.DuckDBPyConnection, recorded: Recorded, first: int, last: int) -> bool:
    """Make the table ``chunk`` of the samples of these steps; False where there are none."""
    groups = recorded.inside(first, last)
    if groups:
        samples = samples_sql(groups, f"step between {first} and {last}")
        connection.execute(f"create or replace temp table chunk as {samples}")
    return bool(groups)


def _create(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute(
        "create temp table sums (bin int, source varchar, samples bigint, weight double, shared bigint, share double, "
        "scored bigint, n double, loss double)"
    )
    connection.execute("create temp table steps (step int, step_loss double, number bigint, step_share double)")
    connection.execute(
        'create temp table tops (source varchar, document_id varchar, "offset" bigint, step int, norm double, '
        "weight double, loss double)"
    )


def _quantiles(connection: duckdb.DuckDBPyConnection) -> tuple[Any, ...] | None:
    """Of log₁₀ n and of weights, of the chunk."""
    points = list(QUANTILES)
    row = connection.execute(
        f"select quantile_cont(log10(n), {points}) filter (n > 0), quantile_cont(weight, {points}) from chunk"
    ).fetchone()
    if row is None or row[1] is None:
        return None
    return (*(row[0] or [None] * len(points)), *row[1])


def _told_quantiles(rows: Sequence[tuple[Any, ...]], first: int) -> Quantiles | None:
    kept = [row for row in rows if row[first] is not None]
    if not kept:
        return None
    columns = [plain_list([row[first + place] for row in kept]) for place in range(len(QUANTILES))]
    return Quantiles([row[0] for row in kept], *columns)


def _sources(connection: duckdb.DuckDBPyConnection) -> list[SourceFigures]:
    """By samples, the most first."""
    rows = connection.execute(
        f"""
        select source, sum(samples)::bigint, sum(samples) / any_value(every), sum(weight) / any_value(mass),
            sum(share) / any_value(moved),
            sum(share) / any_value(moved) / (nullif(sum(shared), 0) / any_value(every_shared)),
            sum(n) / nullif(sum(scored), 0), sum(weight) / sum(samples), sum(loss) / sum(samples)
        from sums, (
            select sum(samples) as every, sum(weight) as mass, sum(share) as moved, sum(shared) as every_shared
            from sums
        )
        group by source order by 2 desc, 1 limit {MOST_SOURCES}
        """
    ).fetchall()
    return [SourceFigures(source, samples, *map(plain, figures)) for source, samples, *figures in rows]  # type: ignore[arg-type]
