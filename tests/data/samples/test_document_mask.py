"""What a batch says of the documents in its rows, is where the documents are."""

import json
import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest

from presence_ds.data import open_corpus, prepare_corpus
from presence_ds.data.corpus.dataset import collate
from presence_ds.data.corpus.manifest import MANIFEST, manifest_digest, read_manifest
from presence_ds.data.samples.objective import CausalByDocument
from presence_ds.data.samples.packing import Piece
from presence_ds.errors import DataError
from tests.data.corpus.corpora import MakeConfig
from tests.data.samples.samples import check_documents


def test_pieces_and_padding_begin_anew() -> None:
    rows: dict[str, Any] = {
        "input_ids": [np.arange(5, dtype=np.int32), np.arange(10, 16, dtype=np.int32)],
        "pieces": [[Piece("a", 7, 2), Piece("b", 0, 3)], [Piece("c", 0, 1), Piece("d", 0, 5)]],
    }
    batch = CausalByDocument(6, 99)(rows, np.zeros(2, dtype=np.int64))
    assert {name: value.tolist() for name, value in batch.items()} == {
        "input_ids": [[0, 1, 2, 3, 4, 99], [10, 11, 12, 13, 14, 15]],
        "labels": [[-100, 1, -100, 3, 4, -100], [-100, -100, 12, 13, 14, 15]],
        "position_ids": [[0, 1, 0, 1, 2, 0], [0, 0, 1, 2, 3, 4]],
        "document_indices": [[0, 0, 1, 1, 1, -1], [0, 1, 1, 1, 1, 1]],
    }


@pytest.mark.parametrize("packing", ["concat", "best_fit"])
def test_stored_rows(packing: str, make_config: MakeConfig, tmp_path: Path) -> None:
    """Whether the corpus was prepared for a mask or not."""
    prepare_corpus(make_config(packing=packing), tmp_path / "corpus")
    corpus = open_corpus(tmp_path / "corpus", document_mask=True)
    rows = corpus.train.of_sources([0])
    batch = collate(rows.__getitems__(list(range(len(rows)))))
    assert check_documents(batch, corpus.tokenizer.eos_token_id) > 10
    assert batch["document_ids"] == rows.rows["document_id"][:]


def test_a_corpus_serves_with_and_without_a_mask(make_config: MakeConfig, tmp_path: Path) -> None:
    """It is not prepared anew where a run goes on with the other one."""
    for number, mask in enumerate((False, True, False)):
        prepare_corpus(make_config(document_mask=mask), tmp_path / "corpus", overwrite=False)
        if number == 0:
            found = (tmp_path / "corpus" / "train.arrow").stat()
    assert (tmp_path / "corpus" / "train.arrow").stat() == found


def test_a_corpus_of_an_earlier_version_is_prepared_again(make_config: MakeConfig, tmp_path: Path) -> None:
    """Packing concat did not note documents: to be refused as it is, and replaced in a run's own folder."""
    prepare_corpus(make_config(), tmp_path / "corpus")
    file, manifest = tmp_path / "corpus" / "train.arrow", read_manifest(tmp_path / "corpus")
    assert manifest is not None
    rows = datasets.Dataset.from_file(str(file)).remove_columns("pieces")
    with pa.OSFile(str(tmp_path / "rows"), "wb") as sink, pa.ipc.new_stream(sink, rows.data.schema) as stream:
        stream.write_table(rows.data.table)
    shutil.move(tmp_path / "rows", file)
    manifest["files"]["train.arrow"] = file.stat().st_size
    manifest["digest"] = manifest_digest(manifest)
    (tmp_path / "corpus" / MANIFEST).write_text(json.dumps(manifest))
    assert len(open_corpus(tmp_path / "corpus").train) == len(rows)
    with pytest.raises(DataError, match=r"data\.document_mask is true, and .*train\.arrow was written by an earlier"):
        open_corpus(tmp_path / "corpus", document_mask=True)
    prepare_corpus(make_config(document_mask=True), tmp_path / "corpus")
    assert len(open_corpus(tmp_path / "corpus", document_mask=True).train) == len(rows)
