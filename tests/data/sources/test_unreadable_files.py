"""Files that are missing, damaged, empty or of another kind than they say."""

import bz2
import gzip
import hashlib
import json
import lzma
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from presence_ds.data import SourceConfig
from presence_ds.data.sources.finding import find_files
from presence_ds.data.sources.reading import read_documents
from presence_ds.data.sources.tally import Skipped
from presence_ds.errors import DataError
from tests.data.sources.files import COMPRESS, error_of, table_bytes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"text": "one"}, {"te', "cannot be read as a JSON file: Unterminated string"),
        ("[" * 100_000, "cannot be read as a JSON file: "),
        ('"text"', "is one JSON value of type str: it must be an array of objects"),
        ('{"text": ["one"], "n": []}', "is an object of arrays of different lengths"),
        ("", "cannot be read as a JSON file: "),
    ],
)
def test_json_file_of_another_kind_is_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    assert f"{path} {message}" in error_of(SourceConfig("s", str(path)))


def test_wrong_parquet_column_names_the_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"content": ["x"], "url": ["y"]}), path)
    assert error_of(SourceConfig("s", str(path))) == f'{path} has no column "text": its columns are content, url'


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    whole = tmp_path / "whole.parquet"
    pq.write_table(pa.table({"text": [f"some text {number}" for number in range(1000)]}), whole)
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(whole.read_bytes()[:-100])
    assert f"{cut} cannot be read as a parquet file: " in error_of(SourceConfig("s", str(cut)))
    damaged = tmp_path / "damaged.parquet"
    damaged.write_bytes(b"PAR1" + b"\x00" * 2000 + whole.read_bytes()[2004:])
    assert f"{damaged} cannot be read as a parquet file: " in error_of(SourceConfig("s", str(damaged)))
    packed = tmp_path / "cut.jsonl.gz"
    packed.write_bytes(gzip.compress(b'{"text": "one"}\n' * 1000)[:-20])
    assert f"{packed} cannot be read as a file: " in error_of(SourceConfig("s", str(packed)))


def test_missing_input_is_named(tmp_path: Path) -> None:
    source = 'source "s": path '
    assert error_of(SourceConfig("s", f"{tmp_path}/no.txt")) == f"{source}{tmp_path}/no.txt does not exist"
    assert error_of(SourceConfig("s", f"{tmp_path}/*.txt")) == f"{source}{tmp_path}/*.txt matches no file"
    assert f"{source}{tmp_path} is a folder without any .txt" in error_of(SourceConfig("s", str(tmp_path)))
    (tmp_path / "a.log").write_text("x")
    assert "a.log tells no format: set format to text, jsonl, json, parquet, arrow" in error_of(
        SourceConfig("s", f"{tmp_path}/*")
    )


def test_empty_source_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n\n")
    assert error_of(SourceConfig("s", str(path))) == f'source "s" is empty: there is no document in {path}'


def bad_files(folder: Path) -> dict[str, tuple[Path, int]]:
    """Files with a fault in the middle or a missing end, and how many of their 2000 rows come before it at least."""
    rows = [{"text": hashlib.sha256(bytes([n % 256, n // 256])).hexdigest()} for n in range(2000)]
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    table, sink = pa.table({"text": [row["text"] for row in rows]}), pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=500, use_dictionary=False)
    parquet = sink.getvalue().to_pybytes()
    arrow = table_bytes("stream", [row["text"] for row in rows])
    middle = len(parquet) * 5 // 8
    damaged = {
        "parquet": (parquet[:middle] + b"\xff" * 5_000 + parquet[middle + 5_000 :], 1000),
        "cut.parquet": (parquet[:-100], 0),
        "jsonl.gz": (gzip.compress(lines)[:-2000], 1000),
        "jsonl.zst": (COMPRESS[".zst"](lines)[:-2000], 1000),
        "jsonl.bz2": (bz2.compress(lines)[:-2000], 0),
        "jsonl.xz": (lzma.compress(lines)[:-2000], 1000),
        "arrow": (arrow[: len(arrow) // 2 + 20], 900),
        "json": (b"[" + lines.replace(b"\n", b",")[:-300], 0),
        "parquet.zst": (COMPRESS[".zst"](parquet)[:-2000], 0),
    }
    found = {}
    for ending, (content, good) in damaged.items():
        found[ending] = folder / f"b.{ending}", good
        found[ending][0].write_bytes(content)
    return found


def test_damaged_file_stops_the_run_or_is_left_out_from_the_fault_on(tmp_path: Path) -> None:
    before, after = tmp_path / "a.jsonl", tmp_path / "c.jsonl"
    before.write_text('{"text": "before"}\n')
    after.write_text('{"text": "after"}\n')
    for path, least in bad_files(tmp_path).values():
        source = SourceConfig("s", [str(before), str(path), str(after)])
        message = error_of(source)
        assert message.startswith(f"{path} cannot be read as a"), path
        skipped = Skipped()
        documents = list(read_documents(source, find_files(source), 0.0, skipped, "skip"))
        texts = [document.text for document in documents]
        assert (texts[0], texts[-1]) == ("before", "after"), path
        expected = [hashlib.sha256(bytes([n % 256, n // 256])).hexdigest() for n in range(2000)]
        assert texts[1:-1] == expected[: len(texts) - 2], path
        assert least <= len(texts) - 2 < 2000, path
        assert f"({len(texts) - 2} good rows before that; data.on_bad_file: skip" in message
        assert len(skipped.files) == 1
        assert skipped.files[0].startswith(str(path))
        assert f"({len(texts) - 2} good rows before that)" in skipped.files[0]


def test_source_of_damaged_files_alone_stops_in_any_case(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(b"no gzip")
    source = SourceConfig("s", str(path))
    with pytest.raises(DataError, match=r'source "s": none of its files can be read; the first is .*a.jsonl.gz'):
        list(read_documents(source, find_files(source), 1.0, Skipped(), "skip"))
