"""Score records as SQL: which of them count, and the share of each in its step's update."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from presence_ds.trainer.callbacks.score_schema import SCHEMA
from presence_ds.trainer.gain.records import RowGroup
from presence_ds.trainer.samples.database import files_of, quoted

SQL_TYPES = {"int64": "BIGINT", "int32": "INTEGER", "int16": "SMALLINT", "float": "REAL", "bool": "BOOLEAN"}

# As `presence_ds.trainer.gain.records` has it; what is not recorded rules nothing out.
COUNTS = " AND ".join(
    [
        "has_targets",
        *(f"coalesce(isfinite({field.name}), true)" for field in SCHEMA if str(field.type) == "float"),
        "NOT coalesce(weight = 0 AND alignment = 0 AND self_influence > 0, false)",
    ]
)

# The part of a sample in the squared norm of the weighted gradient Σ_j w_j g_j is its inner product with that,
# w_i g_i · Σ_j w_j g_j: w_i² n_i, and w_i times the weighted others, of which the alignment knows the mean. Exact for
# uniform weights, and below 0 for a sample that pulls back. Where there is no alignment, the length of w_i g_i;
# estimates of n_i may be below 0, of which DuckDB takes no root.
MOVED = "weight::DOUBLE * (weight * self_influence::DOUBLE + (1 - weight) * alignment)"
LENGTH = "weight::DOUBLE * sqrt(greatest(self_influence::DOUBLE, 0))"

# Columns of a step, from its records that count: how many, whether all have an alignment, and what shares are parts of.
OF_STEP = f"""
    count(*) AS samples, count(alignment) = count(*) AS aligned,
    CASE WHEN count(self_influence) < count(*) THEN NULL WHEN count(alignment) = count(*) THEN sum({MOVED})
         ELSE sum({LENGTH}) END AS total
"""
# Columns of a record that counts, joined with those of its step.
OF_SAMPLE = f"""
    samples * weight::DOUBLE AS relative_weight,
    CASE WHEN total > 0 THEN CASE WHEN aligned THEN {MOVED} ELSE {LENGTH} END / total END AS share
"""


def records_sql(groups: Iterable[RowGroup], condition: str) -> str:
    """A query for the records in the files of ``groups`` that meet ``condition``, counting or not.

    It has the columns of `SCHEMA`, null where a file lacks one, and ``counts``: whether the sample counted in training.
    """
    groups = list(groups)
    files = ", ".join(_literal(name) for name in files_of(dict.fromkeys(group.file for group in groups)))
    known = {name for group in groups for name in group.metadata.schema.names}
    columns = ", ".join(_column(field, known=field.name in known) for field in SCHEMA)
    return (
        f"SELECT *, {COUNTS} AS counts FROM (SELECT {columns} "
        f"FROM read_parquet([{files}], union_by_name = true) WHERE {condition})"
    )


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _column(field: Any, *, known: bool) -> str:
    kind, name = SQL_TYPES.get(str(field.type), "VARCHAR"), quoted(field.name)
    return f"CAST({name if known else 'NULL'} AS {kind}) AS {name}"
