"""Run directories that are made up, line by line and record by record."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from presence_ds.trainer.callbacks.score_schema import SCHEMA
from presence_ds.trainer.run_directory.layout import score_file_name

RECIPE = {
    "presence": {"preset": "calibrated", "seed": 0},
    "optimizer": {"lr": 0.001},
    "training": {"steps": 100, "seed": 0},
    "logging": {"every_steps": 1},
}


def write_recipe(run: Path, **sections: Mapping[str, Any]) -> Path:
    """A recipe with fields of some sections changed."""
    run.mkdir(parents=True, exist_ok=True)
    recipe = {name: {**RECIPE.get(name, {}), **sections.get(name, {})} for name in {**RECIPE, **sections}}
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return run


def write_metrics(run: Path, lines: Iterable[Mapping[str, Any] | str]) -> Path:
    """metrics.jsonl of ``lines``; a text stands as it is, without an end of line."""
    run.mkdir(parents=True, exist_ok=True)
    with open(run / "metrics.jsonl", "w") as file:
        for line in lines:
            file.write(line if isinstance(line, str) else json.dumps(line) + "\n")
    return run / "metrics.jsonl"


def write_records(run: Path, rows: Sequence[Mapping[str, Any]], *, without: Sequence[str] = ()) -> Path:
    """scores/ of one file with ``rows``, each of which states what matters, as a version without some columns would."""
    usual = {"micro_step": 0, "rank": 0, "position": 0, "source": "web", "offset": 0, "loss": 1.0, "has_targets": True}
    schema = pa.schema([field for field in SCHEMA if field.name not in without])
    folder = run / "scores"
    folder.mkdir(parents=True, exist_ok=True)
    steps = [row["step"] for row in rows]
    full = [
        {**dict.fromkeys(SCHEMA.names), **usual, "document_id": f"d{place}", **row} for place, row in enumerate(rows)
    ]
    columns = {name: pa.array([row[name] for row in full], SCHEMA.field(name).type) for name in schema.names}
    pq.write_table(pa.table(columns, schema=schema), folder / score_file_name((0, 0), min(steps), max(steps)))
    return folder
