"""Rows that cannot be used: each is skipped and located, and too many of them stop the run."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from presence_ds.data import SourceConfig
from presence_ds.data.readers.documents import Document
from presence_ds.data.sources.finding import find_files
from presence_ds.data.sources.reading import read_documents
from presence_ds.data.sources.tally import Skipped
from presence_ds.errors import DataError
from tests.data.sources.files import COMPRESS, error_of, read, table_bytes


def test_rows_of_a_json_file_that_are_no_objects_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"text": "one"}, "two", {"text": null}]')
    documents, skipped = read(SourceConfig("s", str(path)), max_bad_share=0.7)
    assert documents == [Document("a.json:1", "one")]
    assert skipped.examples == [
        f"{path} row 2: not a JSON object but a str",
        f'{path} row 3: field "text" is missing or null',
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "cut', "not valid JSON"),
        (b'["text"]', "not a JSON object but a list"),
        (b'{"other": "x"}', 'field "text" is missing or null'),
        (b'{"text": null}', 'field "text" is missing or null'),
        (b'{"text": " \\n"}', 'field "text" is empty'),
        (b'{"text": 3}', 'field "text" is of type int, not a string'),
        (b'{"text": "\\ud800"}', 'field "text" holds a lone surrogate'),
        (b'{"text": "\xff"}', "not valid UTF-8"),
        (b"[" * 100_000, "not valid JSON"),
    ],
)
def test_malformed_jsonl_line_is_skipped_and_located(tmp_path: Path, line: bytes, reason: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "one"}\n' + line + b'\n{"text": "two"}\n')
    documents, skipped = read(SourceConfig("s", str(path)), max_bad_share=0.5)
    assert [document.text for document in documents] == ["one", "two"]
    assert skipped.rows == 1
    assert skipped.examples[0].startswith(f"{path} line 2: {reason}")


def test_row_without_id_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one", "id": "x"}\n{"text": "two"}\n')
    documents, skipped = read(SourceConfig("s", str(path), id_field="id"), max_bad_share=0.5)
    assert documents == [Document("x", "one")]
    assert skipped.examples == [f'{path} line 2: field "id" is missing or null']


def test_undecodable_and_empty_text_files_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "b.txt").write_bytes(b"fine\nthen \xe9 latin\n")
    (tmp_path / "c.txt").write_text("")
    documents, skipped = read(SourceConfig("s", str(tmp_path)), max_bad_share=0.7)
    assert documents == [Document("a.txt", "one")]
    assert skipped.examples == [
        f"{tmp_path}/b.txt line 2: not valid UTF-8",
        f"{tmp_path}/c.txt line 1: the text is empty",
    ]


def test_parquet_row_without_text_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["one", None, ""]}), path)
    documents, skipped = read(SourceConfig("s", str(path)), max_bad_share=0.7)
    assert documents == [Document("a.parquet:1", "one")]
    assert [example.split(": ")[0] for example in skipped.examples] == [f"{path} row 2", f"{path} row 3"]


def test_bad_share_stops_the_run_only_above_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [json.dumps({"text": f"text {number}"}) for number in range(90)] + ["broken"] * 10
    path.write_text("\n".join(rows))
    documents, skipped = read(SourceConfig("s", str(path)), max_bad_share=0.1)
    assert (len(documents), skipped.rows, len(skipped.examples)) == (90, 10, 5)
    message = error_of(SourceConfig("s", str(path)), max_bad_share=0.09)
    assert 'source "s": 10 of 100 rows cannot be used, more than max_bad_share 0.09 allows' in message
    assert f"the first is {path} line 91: not valid JSON" in message


def test_wrong_text_field_stops_early_whatever_the_share(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"content": "x"}\n' * 5000)
    message = error_of(SourceConfig("s", str(path)), max_bad_share=1.0)
    assert message == (
        f'source "s": none of the first 1000 rows can be used; the first is {path} line 1: '
        'field "text" is missing or null'
    )


@pytest.mark.parametrize(
    ("name", "documents", "content", "good"),
    [
        ("a.txt", "line", b"one\n" + b"x" * 41 + b"\ntwo\n" + b"y" * 39 + b"\n", ["one\n", "two\n", "y" * 39 + "\n"]),
        ("a.txt", "paragraph", b"one\n\n" + b"x" * 20 + b"\n" + b"x" * 20 + b"\n\ntwo", ["one\n", "two"]),
        ("a.jsonl", "file", b'{"text": "one"}\n{"text": "' + b"x" * 40 + b'"}\n{"text": "two"}', ["one", "two"]),
        (
            "a.json",
            "file",
            b'[{"text": "one"}, {"text": "' + "ü".encode() * 21 + b'"}, {"text": "two"}]',
            ["one", "two"],
        ),
        ("a.parquet", "file", table_bytes("parquet", ["one", "ü" * 21, "ü" * 20]), ["one", "ü" * 20]),
    ],
)
def test_huge_row_is_a_bad_row(tmp_path: Path, name: str, documents: Any, content: bytes, good: list[str]) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    source, skipped = SourceConfig("s", str(path), documents=documents), Skipped()
    found = list(read_documents(source, find_files(source), 0.5, skipped, max_bytes=40))
    assert [document.text for document in found] == good
    assert skipped.rows == 1
    assert skipped.examples[0].endswith("longer than max_document_megabytes 4e-05")


@pytest.mark.parametrize(("name", "documents"), [("a.jsonl.zst", "file"), ("a.txt.gz", "line"), ("b.txt.gz", "file")])
def test_huge_row_is_never_in_memory(tmp_path: Path, name: str, documents: Any) -> None:
    path = tmp_path / name
    path.write_bytes(COMPRESS[path.suffix](b"x" * 50_000_000 + b"\n"))
    source = SourceConfig("s", str(path), documents=documents)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="none of the first 1 rows can be used"):
            list(read_documents(source, find_files(source), 1.0, Skipped(), max_bytes=1_000_000))
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
