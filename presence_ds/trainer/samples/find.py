"""Score records by DuckDB: each sample's share of the update, and the samples that stand out.

DuckDB streams the files, so that memory does not grow with the number of records, but by a row for each step.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from presence_ds.errors import ConfigError
from presence_ds.trainer.gain.records import check_columns, find_row_groups
from presence_ds.trainer.run_directory.layout import RunDirectory
from presence_ds.trainer.samples.database import database
from presence_ds.trainer.samples.sql import OF_SAMPLE, OF_STEP, records_sql
from presence_ds.trainer.samples.texts import Sample

KEYS = {"weight": "relative_weight", "si": "self_influence", "share": "share", "alignment": "alignment"}
REQUIRED = ("step", "source", "loss", "weight", "has_targets")

STEPS = f"CREATE TEMP TABLE steps AS SELECT step, {OF_STEP} FROM records WHERE counts GROUP BY step"
SHARES = f"CREATE TEMP VIEW shares AS SELECT *, {OF_SAMPLE} FROM records JOIN steps USING (step) WHERE counts"


@dataclass(frozen=True)
class Records:
    """Records of some steps, as views of DuckDB.

    - ``records``: all of them, as of `records_sql`.
    - ``steps``: of each ``step`` the number of ``samples``, which are the records that count.
    - ``shares``: those that count, with ``relative_weight``, their weight times ``samples``, so that the mean is 1, and
      ``share``, their share of the update: w (w n + (1 - w) a) divided by its sum over the step, or w √n where a step
      has no alignments; null where the sum is not above 0, or there is no self-influence. The same as in torch:
      `presence_ds.reweighting.update_share`.

    Attributes:
        first: step that there are records of, of those asked for.
        last: likewise.
    """

    connection: duckdb.DuckDBPyConnection
    folder: Path
    first: int
    last: int

    def fetch(self, query: str, values: list[Any] | None = None) -> list[tuple[Any, ...]]:
        """The rows of a query.

        Raises:
            ConfigError: a file cannot be read.
        """
        try:
            return self.connection.execute(query, values or []).fetchall()
        except (duckdb.Error, UnicodeError) as error:  # the latter of names that are not UTF-8
            raise ConfigError(f"{self.folder} cannot be read ({' '.join(str(error).split())})") from None


@contextmanager
def open_records(run_dir: Path, first: int | None = None, last: int | None = None) -> Iterator[Records]:
    """The records of steps ``first`` to ``last`` of a run, which may be in progress; of all without these.

    Raises:
        ConfigError: there is no run, or it has no records of these steps, or a file is none of score records.
    """
    directory = RunDirectory(run_dir)
    if not directory.path.is_dir():
        raise ConfigError(f"run_dir is {run_dir}: there is no such directory")
    groups = find_row_groups(directory)
    recorded = min(group.first for group in groups), max(group.last for group in groups)
    low = recorded[0] if first is None else max(first, recorded[0])
    high = recorded[1] if last is None else min(last, recorded[1])
    groups = [group for group in groups if group.first <= high and group.last >= low]
    if low > high or not groups:
        asked = ":".join("" if step is None else str(step) for step in (first, last))
        raise ConfigError(f"steps is {asked}: records are of steps {recorded[0]} to {recorded[1]}")
    check_columns(groups, REQUIRED)
    with database() as connection:
        records = Records(connection, directory.scores, low, high)
        records.fetch("SET preserve_insertion_order = false")  # which costs memory
        records.fetch(f"CREATE TEMP VIEW records AS {records_sql(groups, f'step BETWEEN {low} AND {high}')}")
        records.fetch(STEPS)
        records.fetch(SHARES)
        yield records


@dataclass(frozen=True)
class Found:
    """A sample in a step.

    Attributes:
        rank: which had it, in its ``micro_step``, at ``position`` of the micro-batch.
        weight: in units of the step's mean.
        share: of the update, as in `Records`.
    """

    sample: Sample
    step: int
    micro_step: int
    rank: int
    position: int
    loss: float
    self_influence: float | None
    alignment: float | None
    weight: float
    share: float | None


@dataclass(frozen=True)
class StandingOut:
    """Samples that stand out among those of steps ``first`` to ``last``.

    Attributes:
        records: number of the source, or of all.
        counted: of these, in training.
        found: from the one that stands out the most.
    """

    first: int
    last: int
    records: int
    counted: int
    found: list[Found]


def find_samples(
    run_dir: Path,
    number: int,
    by: str,
    *,
    lowest: bool = False,
    source: str | None = None,
    first: int | None = None,
    last: int | None = None,
) -> StandingOut:
    """The ``number`` samples with the highest, or lowest, of what ``by`` (`KEYS`) says; of like ones the first.

    Raises:
        ConfigError: as `open_records`, or no sample has what ``by`` says, or there is no such source.
    """
    key, order = KEYS[by], "ASC" if lowest else "DESC"
    columns = 'source, document_id, "offset", step, micro_step, rank, position, loss, self_influence, alignment'
    with open_records(run_dir, first, last) as records:
        steps = f"steps {records.first} to {records.last}"
        where, values = ("true", []) if source is None else ("source = ?", [source])
        numbers = "count(*), (SELECT sum(samples) FROM steps)" if source is None else "count(*), count_if(counts)"
        ((total, counted),) = records.fetch(f"SELECT {numbers} FROM records WHERE {where}", values)
        if not total:
            names = ", ".join(name for (name,) in records.fetch("SELECT DISTINCT source FROM records ORDER BY 1"))
            raise ConfigError(f"source is {source}: {steps} have no sample of it; they have {names}")
        rows = records.fetch(
            f"SELECT {columns}, relative_weight, share FROM shares WHERE {where} AND {key} IS NOT NULL "
            f"ORDER BY {key} {order}, step, rank, micro_step, position LIMIT {number}",
            values,
        )
        if not rows:
            raise ConfigError(f"by is {by}: no sample of {steps} that counts has one; {_remedy(by)}")
        found = [Found(Sample(*row[:3]), *row[3:]) for row in rows]
        return StandingOut(records.first, records.last, total, counted, found)


def _remedy(by: str) -> str:
    if by == "alignment":
        return "train with presence.alignment true, or choose weight"
    return "choose weight, or another signal of presence than loss" if by != "weight" else "choose other steps"
