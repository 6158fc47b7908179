"""Stored rows of corpora that are larger than what arrow copies of a column."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from presence_ds.data import DataConfig, SourceConfig, TokenizerConfig, prepare_corpus
from presence_ds.data.corpus.rows import StoredRows, number_ids
from tests.data.conftest import make_text

ROW = 1 << 24  # values


@pytest.fixture
def stored(tmp_path: Path) -> StoredRows:
    """130 rows of 2^31 tokens and more, in batches of one row, all of them the same memory."""
    (tmp_path / "a.txt").write_text(make_text(0))
    source = SourceConfig("a", str(tmp_path / "a.txt"))
    tokenizer = TokenizerConfig(vocab_size=300)
    config = DataConfig(sources=[source], validation_fraction=0.0, sequence_length=8, tokenizer=tokenizer)
    prepare_corpus(config, tmp_path / "corpus")
    found = StoredRows(tmp_path / "corpus")
    row = pa.ListArray.from_arrays(pa.array([0, ROW], pa.int32()), pa.array(np.zeros(ROW, np.int8)))
    number = 130
    ids = [pa.array([f"d{index}"]) for index in range(number)]
    found.table = pa.table({"input_ids": pa.chunked_array([row] * number), "document_id": pa.chunked_array(ids)})
    assert found.tokens().sum() > 1 << 31
    return found


def test_few_rows_of_many_tokens(stored: StoredRows) -> None:
    """Of all of them arrow would make one array, which holds no more than 2^31 values of lists."""
    rows = np.array([0, 77, 129])
    assert [len(row) for row in stored.column("input_ids", rows)] == [ROW] * 3
    assert stored.column("document_id", rows).to_pylist() == ["d0", "d77", "d129"]
    assert [table.column_names for table in stored.of(rows)] == [["input_ids", "document_id"]] * 3
    assert stored.column("document_id", rows[:0]).to_pylist() == []


@pytest.mark.long
def test_ids_of_more_than_two_gibibytes() -> None:
    """Each another, in 8 MiB of memory: what the next one has begins a character later."""
    size, number = 8 << 20, 260
    text = pa.py_buffer(np.random.default_rng(0).integers(97, 123, size + number, dtype=np.uint8).tobytes())
    places = [pa.py_buffer(np.array([first, first + size], np.int32).tobytes()) for first in range(number)]
    ids = pa.chunked_array([pa.StringArray.from_buffers(1, place, text) for place in places])
    assert number_ids(ids).tolist() == list(range(number))
