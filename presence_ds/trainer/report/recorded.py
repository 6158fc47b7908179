"""The score records of a run as SQL: samples that count, with what they had in their step's update."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from presence_ds.errors import ConfigError
from presence_ds.trainer.gain.records import RowGroup, row_groups
from presence_ds.trainer.report.database import files_of, quoted

ALWAYS = ("step", "source", "document_id", "offset", "loss", "weight", "has_targets")
MAYBE = ("self_influence", "alignment")  # not of every version, or setting


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


def records_sql(recorded: Recorded, groups: Iterable[RowGroup], condition: str) -> str:
    """A query for records in ``groups`` that count and meet ``condition`` on their columns.

    Its columns: step, source, document_id, "offset", loss, n, a (NULL where they are not recorded), w.
    """
    files = files_of(dict.fromkeys(group.file for group in groups))
    names = ", ".join("'" + name.replace("'", "''") + "'" for name in files)
    columns: dict[str, Any] = {name: quoted(name) if name in recorded.columns else "NULL" for name in MAYBE}
    n, a = columns["self_influence"], columns["alignment"]
    return f"""
        select step, source::varchar as source, document_id, "offset", loss::double as loss, n, a, w from (
            select *, {n}::double as n, {a}::double as a, weight::double as w
            from read_parquet([{names}], union_by_name = true) where {condition}
        )
        where has_targets and isfinite(loss) and isfinite(w) and coalesce(isfinite(n), true)
            and coalesce(isfinite(a), true) and not coalesce(w = 0 and a = 0 and n > 0, false)
    """


def samples_sql(records: str) -> str:
    """A query for samples of whole steps, from `records_sql`, with figures of their step.

    Further columns: v (w by its sum over the step), weight (v·N), number (N), unit (mean n), step_loss, step_share
    (effective sample size by N), aligned (whether all of the step have an alignment), and share, of the update:
    v (v n + (1 − v) a) by its sum over the step, which is the part of ‖Σ v g‖² that is ⟨v g, Σ v g⟩; v √n by its sum
    where alignments are not recorded; NULL where nothing is.
    """
    return f"""
        with records as materialized ({records}),
        steps as (
            select step, count(*) as number, nullif(sum(w), 0) as total, avg(n) as unit, avg(loss) as step_loss,
                bool_and(a is not null) as aligned
            from records group by step
        ),
        weighed as (
            select *, w / total as v from records join steps using (step)
        ),
        moving as (
            select *, if(aligned, v * (v * n + (1 - v) * a), v * sqrt(n)) as part from weighed
        ),
        sums as (
            select step, sum(part) as moved, 1 / sum(v * v) / any_value(number) as step_share from moving group by step
        )
        select moving.* exclude (part), v * number as weight, step_share, if(moved > 0, part / moved, NULL) as share
        from moving join sums using (step)
    """
