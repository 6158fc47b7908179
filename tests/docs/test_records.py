"""docs/records.md: its columns are those that are written, its code reads them, a sample takes as much as it says."""

import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from presence_ds.trainer.callbacks.score_records import RecordFile
from presence_ds.trainer.callbacks.score_schema import SCHEMA
from tests.docs.pages import PAGES, README
from tests.trainer.samples.records import PER_STEP, columns_of, table_of

PAGE = README.parent / "docs" / "records.md"
READERS = [code for code in PAGES[PAGE].code if code.language == "python"]
TYPES = {"float": "float32", "dictionary<values=string, indices=int16, ordered=0>": "string, in a dictionary"}


def write(folder: Path, steps: list[int]) -> None:
    """As training does, between two checkpoints; the file of the step after them is not finished."""
    file = RecordFile(folder, [0, 1])
    file.write(table_of(columns_of(steps)))
    file.finish()
    file.write(table_of(columns_of([steps[-1] + 1])))


def test_the_columns_are_those_that_are_written() -> None:
    table = PAGE.read_text().split("<!-- columns -->")[1].split("<!-- /columns -->")[0]
    said = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", table, re.MULTILINE)
    kinds = [TYPES.get(str(field.type), str(field.type)) + (" or null" if field.nullable else "") for field in SCHEMA]
    assert said == list(zip(SCHEMA.names, kinds, strict=True))


@pytest.mark.parametrize("code", READERS, ids=lambda code: code.text.split("\n")[0])
def test_they_are_read_as_it_says(code: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three lines each, as they stand there, on the records of a run in progress."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "RUN_DIR").mkdir()
    for steps in ([1, 2, 3], [4, 5]):
        write(tmp_path / "RUN_DIR" / "scores", steps)
    text = str(code.text)  # type: ignore[attr-defined]
    assert len(text.split("\n")) == 5  # one of them blank, as ruff wants it, and the end
    names: dict[str, object] = {}
    with redirect_stdout(StringIO()) as printed:
        exec(compile(text, str(PAGE), "exec"), names)
    assert len(names["records"]) == 5 * PER_STEP  # type: ignore[arg-type]
    assert "web" in printed.getvalue()


def test_there_are_three_of_them() -> None:
    assert [code.text.split()[1] for code in READERS] == ["duckdb", "pandas", "datasets"]


def test_bytes_of_a_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With alignments, weights and a feature that are all different, and documents of a corpus of two million."""
    columns = columns_of(list(range(1, 1001)))
    size, generator = len(columns["step"]), np.random.default_rng(0)
    ids, offsets = generator.integers(0, 2_000_000, size), generator.integers(0, 20, size) * 128
    columns |= {
        "document_id": [f"web-{number // 10_000:03d}.jsonl:{number % 10_000}" for number in ids.tolist()],
        "offset": offsets,
        "vocabulary_influence": columns["self_influence"] * generator.random(size),
    }
    file, table = RecordFile(tmp_path / "scores", [0]), table_of(columns)
    for first in range(0, size, 8192):
        file.write(pa.Table.from_batches(table.slice(first, 8192).to_batches()))
    file.finish()
    (written,) = (tmp_path / "scores").iterdir()
    measured = written.stat().st_size / size
    with capsys.disabled():
        print(f"\n{measured:.1f} bytes for each of {size:,} score records")
    said = float(re.search(r"A sample takes about (\d+) bytes", PAGE.read_text())[1])  # type: ignore[index]
    assert measured == pytest.approx(said, rel=0.1)
