"""metrics.jsonl of any size → curves, events and means, streamed by DuckDB.

A line that is no JSON, as one that is being written, has no step, or comes again after a resume is passed over; of the
last the newest one counts. Only columns of numbers that a report shows are read.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from presence_ds.trainer.report.choosing import Chosen, choose
from presence_ds.trainer.report.curves import curves_of
from presence_ds.trainer.report.events import events_of
from presence_ds.trainer.report.figures import Cost, Curve, Event
from presence_ds.trainer.report.plain import plain
from presence_ds.trainer.samples.database import database, files_of, quoted
from presence_ds.trainer.status.metrics_lines import last_line, spread_lines

if TYPE_CHECKING:
    import duckdb

LONGEST = 1 << 22  # line, in bytes; some of them are in memory
LINES = 1000  # that are looked at for their keys
MOST_SOURCES = 32  # that have curves of their own
CURVES = (
    *("loss", "weighted_loss", "auxiliary_loss", "gradient_norm", "learning_rate", "effective_sample_size"),
    *("max_weight", "si_mean", "tau", "tau_scheduled", "clip_level", "calibration_strength", "noise_scale"),
    *("noise_scale_tokens", "gradient_sq_norm", "near_duplicate_share", "throughput(tokens/s)", "step_time(s)"),
    *("data_wait_share", "mfu", "memory/peak(GiB)", "scoring_share", "gain/in_use", "gain/in_use_error"),
)
COUNTS = ("skipped_steps", "nonfinite_steps", "loss_spikes", "gradient_spikes")
SUMS = ("nonfinite_samples", "samples_without_targets")
READ = {*CURVES, *COUNTS, *SUMS, "tokens", "samples", "eta(s)", "hours"}
OF_SOURCE = re.compile(r"source/(.+)/(mean_weight|loss|samples|si_mean)")
OF_VALIDATION = re.compile(r"validation/(?:(.+)/)?loss")


@dataclass(frozen=True)
class MetricsFigures:
    """What the metrics tell of a run; as of `RunFigures`.

    Attributes:
        source_sums: by source, samples, and sums over them of weight and self-influence, of the logged steps.
        chosen: steps to look at.
        effective_share: mean over the logged steps.
    """

    step: int = 0
    tokens: float | None = None
    hours: float | None = None
    samples_per_step: float | None = None
    curves: dict[str, Curve] = field(default_factory=dict)
    validation: dict[str, Curve] = field(default_factory=dict)
    last: dict[str, Any] = field(default_factory=dict)
    last_validation: dict[str, Any] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    source_sums: dict[str, dict[str, float | None]] = field(default_factory=dict)
    chosen: list[Chosen] = field(default_factory=list)
    cost: Cost = field(default_factory=Cost)
    effective_share: float | None = None
    missing: list[str] = field(default_factory=list)


def read_metrics(path: Path, total_steps: int | None = None) -> MetricsFigures:
    """The figures of the file ``path``; of one that is not there, or that holds no step, only what is missing.

    ``total_steps``: that are planned.
    """
    import duckdb

    if not path.is_file():
        return MetricsFigures(missing=[f"There are no curves: the run has no {path.name} (yet)."])
    if not os.access(path, os.R_OK):
        return MetricsFigures(missing=[f"There are no curves: {path.name} may not be read."])
    last = last_line(path)
    if last is None:
        why = "is empty" if path.stat().st_size == 0 else "has no whole line with a step"
        return MetricsFigures(missing=[f"There are no curves: {path.name} {why}."])
    validation = last_line(path, "validation/loss") or {}
    names = _names(path, {**validation, **last})
    try:
        with database() as connection:
            _load(connection, path, names)
            if connection.execute("select count(*) from lines").fetchone() == (0,):
                return MetricsFigures(missing=[f"There are no curves: no step in {path.name} is a number of steps."])
            return _figures(connection, names, last, validation, total_steps)
    except (duckdb.Error, UnicodeError) as error:  # the latter of names that are not UTF-8
        why = " ".join(str(error).split())[:300]
        return MetricsFigures(last=last, missing=[f"There are no curves: {path.name} cannot be read ({why})."])


def _names(path: Path, known: dict[str, Any]) -> list[str]:
    """Keys that are shown, as far as a sample of the lines has them; DuckDB knows no difference of case."""
    found = dict.fromkeys([*known, *(name for line in spread_lines(path, LINES) for name in line)])
    sources: dict[str, None] = {}
    kept: dict[str, str] = {}
    for name in found:
        of_source = OF_SOURCE.fullmatch(name)
        if of_source and (of_source[1] in sources or len(sources) < MOST_SOURCES):
            sources[of_source[1]] = None
        elif name not in READ and not OF_VALIDATION.fullmatch(name):
            continue
        kept.setdefault(name.casefold(), name)
    return list(kept.values())


def _load(connection: duckdb.DuckDBPyConnection, path: Path, names: list[str]) -> None:
    """Make the table ``lines``: a row for every step, with ``hours`` and ``stage``; columns of NaN are NULL there."""
    columns = {"step": "BIGINT", "stage": "VARCHAR", **dict.fromkeys(names, "DOUBLE")}
    read = connection.read_json(
        files_of([path])[0],
        columns=columns,
        format="newline_delimited",
        ignore_errors=True,
        maximum_object_size=LONGEST,
    )
    connection.register("read", read)
    finite = ", ".join(f"if(isfinite({quoted(name)}), {quoted(name)}, NULL) as {quoted(name)}" for name in names)
    connection.execute(f"create table raw as select step, stage, {finite or '1'} from read where step is not null")
    clock = _column("step_time(s)", names)
    share = f"{_column('effective_sample_size', names)} / nullif({_column('samples', names)}, 0)"
    connection.execute(
        f"""
        create table lines as
        with once as (select * from raw where rowid in (select max(rowid) from raw group by step)),
        clocked as (
            select *, step - coalesce(lag(step) over (order by step), 0) as steps, {clock} as seconds from once
        )
        select * {"exclude (hours)" if "hours" in names else ""}, {share} as effective_share,
            coalesce({_column("hours", names)}, sum(steps * coalesce(seconds, (select avg(seconds) from clocked)))
                over (order by step) / 3600) as hours
        from clocked order by step
        """
    )
    connection.execute("drop table raw")


def _column(name: str, names: list[str]) -> str:
    return quoted(name) if name in names else "NULL::double"


def _figures(
    connection: duckdb.DuckDBPyConnection,
    names: list[str],
    last: dict[str, Any],
    validation: dict[str, Any],
    total_steps: int | None,
) -> MetricsFigures:
    shown = [name for name in names if name in CURVES or OF_SOURCE.fullmatch(name)]
    validated = {(match[1] or ""): name for name in names if (match := OF_VALIDATION.fullmatch(name))}
    curves = curves_of(connection, [*shown, "effective_share", *validated.values()], _column("tokens", names))
    facts = connection.execute(
        f"select max(step), arg_max({_column('tokens', names)}, step), max(hours), median({_column('samples', names)}),"
        f" avg(effective_share) from lines"
    ).fetchone()
    assert facts is not None
    counts = {name: int(last[name]) for name in COUNTS if name in last}
    for name in SUMS:
        if name in names:
            row = connection.execute(f"select coalesce(sum({quoted(name)}), 0) from lines").fetchone()
            counts[name] = int(row[0]) if row else 0
    has_loss = "loss" in names
    return MetricsFigures(
        step=facts[0],
        tokens=None if facts[1] is None else int(facts[1]),
        hours=plain(facts[2]),
        samples_per_step=plain(facts[3]),
        curves={name: curves[name] for name in [*shown, "effective_share"] if curves[name].step},
        validation={source: curves[name] for source, name in validated.items() if curves[name].step},
        last=last,
        last_validation=validation,
        events=events_of(connection, [name for name in COUNTS if name in names], names),
        counts=counts,
        source_sums=_source_sums(connection, names),
        chosen=choose(connection, "select step, loss from lines where loss is not null") if has_loss else [],
        cost=_cost(connection, names, total_steps),
        effective_share=plain(facts[4]),
        missing=[] if has_loss else ["There is no loss curve: no line of metrics.jsonl has a loss."],
    )


def _cost(connection: duckdb.DuckDBPyConnection, names: list[str], total_steps: int | None) -> Cost:
    """Means over the run, of logged steps by their number of optimizer steps."""

    def mean(name: str) -> str:
        column = _column(name, names)
        return f"sum({column} * steps) / nullif(sum(steps) filter ({column} is not null), 0)"

    tokens, seconds = _column("throughput(tokens/s)", names), _column("step_time(s)", names)
    row = connection.execute(
        f"select sum({tokens} * {seconds} * steps) / nullif(sum({seconds} * steps) filter ({tokens} is not null), 0), "
        f"{mean('step_time(s)')}, max(hours), {mean('data_wait_share')}, {mean('mfu')}, {mean('scoring_share')}, "
        f"max({_column('memory/peak(GiB)', names)}) from lines"
    ).fetchone()
    assert row is not None
    per_second, step_seconds, hours, waited, mfu, scoring, memory = map(plain, row)
    return Cost(per_second, step_seconds, hours, waited, mfu, scoring, _outside(connection, names, total_steps), memory)


def _outside(connection: duckdb.DuckDBPyConnection, names: list[str], total_steps: int | None) -> float | None:
    """Share of the time outside of steps: of the hours so far, or of what ``eta(s)`` says in runs of older versions."""
    if "step_time(s)" not in names:
        return None
    if "hours" in names:
        query = """
        select 3600 * max(hours) / nullif(max(step), 0), sum("step_time(s)" * steps) / sum(steps)
        from lines where "step_time(s)" is not null
        """
    elif total_steps is not None and "eta(s)" in names:  # which is at the pace of the process until then
        query = f"""
        with told as (select * from lines where step < {total_steps} and "eta(s)" > 0 order by step desc limit 1)
        select any_value(told."eta(s)" / ({total_steps} - told.step)),
            sum(lines."step_time(s)" * lines.steps) / sum(lines.steps)
        from lines, told where lines."step_time(s)" is not null and lines.step <= told.step
        """
    else:
        return None
    row = connection.execute(query).fetchone()
    if row is None or not row[0] or row[1] is None:
        return None
    return plain(min(max(1 - row[1] / row[0], 0.0), 1.0))


def _source_sums(connection: duckdb.DuckDBPyConnection, names: list[str]) -> dict[str, dict[str, float | None]]:
    """By source, over logged steps."""
    found: dict[str, dict[str, float | None]] = {}
    for name in names:
        match = OF_SOURCE.fullmatch(name)
        if match is None or match[2] != "samples":
            continue
        samples, of = quoted(name), f"source/{match[1]}/"
        parts = [_column(of + figure, names) for figure in ("mean_weight", "si_mean", "loss")]
        means = [f"sum({part} * {samples}) / nullif(sum({samples}) filter ({part} is not null), 0)" for part in parts]
        row = connection.execute(f"select sum({samples}), {', '.join(means)} from lines").fetchone()
        if row is not None and row[0]:
            found[match[1]] = dict(
                zip(("samples", "mean_weight", "mean_si", "mean_loss"), map(plain, row), strict=True)
            )
    return found
