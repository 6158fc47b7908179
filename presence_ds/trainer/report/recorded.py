"""The score records of a run as SQL: samples that count, with what they had in their step's update."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from presence_ds.errors import ConfigError
from presence_ds.trainer.callbacks.score_schema import SCHEMA
from presence_ds.trainer.gain.records import RowGroup, row_groups
from presence_ds.trainer.samples.database import files_of, quoted
from presence_ds.trainer.samples.sql import OF_SAMPLE, OF_STEP, records_sql

if TYPE_CHECKING:
    import duckdb

ALWAYS = ("step", "source", "document_id", "offset", "loss", "weight", "has_targets")
READ = {*ALWAYS, *(field.name for field in SCHEMA if str(field.type) == "float")}


@dataclass(frozen=True)
class Recorded:
    """What there is of records.

    Attributes:
        columns: of all files together.
        missing: sentences on files that cannot be used.
    """

    groups: list[RowGroup] = field(default_factory=list)
    columns: frozenset[str] = frozenset()
    missing: list[str] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return sum(group.rows for group in self.groups)

    @property
    def first(self) -> int:
        """The first step."""
        return min(group.first for group in self.groups)

    @property
    def last(self) -> int:
        """The last step."""
        return max(group.last for group in self.groups)

    def inside(self, first: int, last: int) -> list[RowGroup]:
        """Row groups that may have records of these steps."""
        return [group for group in self.groups if group.first <= last and group.last >= first]


def find_recorded(folder: Path) -> Recorded:
    """The finished files of ``folder``, but for those that are none of score records."""
    groups: list[RowGroup] = []
    columns: set[str] = set()
    missing = []
    for file in sorted(folder.glob("*.parquet")):
        try:
            found = row_groups(file)
        except ConfigError as error:
            missing.append(f"{str(error)[:1].upper()}{str(error)[1:]}.")
            continue
        names = set(found[0].metadata.schema.to_arrow_schema().names) if found else set(ALWAYS)
        if lacking := [name for name in ALWAYS if name not in names]:
            missing.append(f"{file} holds no score records, without {' and '.join(lacking)}.")
            continue
        groups += found
        columns |= names
    return Recorded(groups, frozenset(columns), missing)


def without_damage(connection: duckdb.DuckDBPyConnection, recorded: Recorded) -> Recorded:
    """``recorded`` without the steps of files that cannot be read to their end, each of which is read here."""
    import duckdb

    missing, spoiled = list(recorded.missing), []
    for file in dict.fromkeys(group.file for group in recorded.groups):
        own = [group for group in recorded.groups if group.file == file]
        first, last = min(group.first for group in own), max(group.last for group in own)
        names = [name for name in own[0].metadata.schema.to_arrow_schema().names if name in READ]
        query = f"select {', '.join(f'max(hash({quoted(name)}))' for name in names)} from read_parquet(?)"
        try:
            connection.execute(query, files_of([file])).fetchall()
        except duckdb.Error as error:
            spoiled.append((first, last))
            why = " ".join(str(error).split())[:200]
            missing.append(f"{file} cannot be read ({why}): there is nothing on steps {first:,} to {last:,}.")
    kept = [
        group
        for group in recorded.groups
        if not any(group.first <= last and group.last >= first for first, last in spoiled)
    ]
    return Recorded(kept, recorded.columns, missing)


def samples_sql(groups: Iterable[RowGroup], condition: str) -> str:
    """A query for the samples that count of whole steps: of those in ``groups`` that meet ``condition``.

    Its columns: step, source, document_id, "offset", loss, n, a, weight (w·N), number (N), unit (mean n), step_loss,
    step_share (effective sample size by N), aligned (whether all of the step have an alignment), and share: of the
    update, as of `presence_ds.trainer.samples.sql`.
    """
    return f"""
        with records as materialized (
            select step, source, document_id, "offset", loss, weight, self_influence, alignment
            from ({records_sql(groups, condition)}) where counts
        ),
        steps as (
            select step, {OF_STEP}, avg(self_influence::double) as unit, avg(loss::double) as step_loss,
                sum(weight::double) ** 2 / sum(weight::double ** 2) / count(*) as step_share
            from records group by step
        )
        select step, source, document_id, "offset", loss::double as loss, self_influence::double as n,
            alignment::double as a, relative_weight as weight, samples as number, unit, step_loss, step_share, aligned,
            share
        from (select *, {OF_SAMPLE} from records join steps using (step))
    """
