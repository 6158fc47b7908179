"""Folders of scores of really prepared corpora, with scores that a test has thought of."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from presence_ds.data import Corpus, open_corpus
from presence_ds.data.corpus.manifest import check_corpus
from presence_ds.trainer.scores.layout import FORMAT_VERSION, MANIFEST, SCHEMA, rows_file_name

ROWS_PER_FILE = 64


def write_scores(folder: Path, corpus: Path, self_influence: Any, **columns: Any) -> Path:
    """Scores of every row of ``corpus``: ``self_influence`` and other ``columns``, [rows] each."""
    train, names = open_corpus(corpus).train.rows, check_corpus(corpus)["source_names"]
    size = len(train)
    values = {
        "row": np.arange(size),
        "source": pa.array([names[number] for number in train["source_id"]]).cast(SCHEMA.field("source").type),
        "document_id": train["document_id"],
        "offset": train["offset"],
        "loss": np.full(size, 3.0, np.float32),
        "targets": [len(ids) - 1 for ids in train["input_ids"]],
        "self_influence": np.asarray(self_influence, np.float32),
        "reference_alignment": pa.nulls(size, pa.float32()),
        "has_targets": np.ones(size, bool),
        **columns,
    }
    table = pa.table([values[name] for name in SCHEMA.names], schema=SCHEMA)
    folder.mkdir(parents=True)
    manifest = {
        "format_version": FORMAT_VERSION,
        "corpus": {"path": str(corpus), "digest": check_corpus(corpus)["digest"], "rows": size},
        "part": "train",
        "settings": {"signal": "self_influence"},
        "checkpoints": [{"name": "step_3", "path": "/run/checkpoints/step_3", "step": 3}],
        "rows_per_file": ROWS_PER_FILE,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest))
    for first in range(0, size, ROWS_PER_FILE):
        pq.write_table(table.slice(first, ROWS_PER_FILE), folder / rows_file_name(first))
    return folder


def random_scores(corpus: Path, seed: int = 0) -> np.ndarray:
    """Heavy-tailed, float32 [rows], no two alike."""
    size = len(open_corpus(corpus).train)
    return np.random.default_rng(seed).lognormal(sigma=2.0, size=size).astype(np.float32)


def stored(corpus: Corpus) -> list[dict[str, Any]]:
    """The rows of the train part as plain values."""
    return list(corpus.train.rows)
