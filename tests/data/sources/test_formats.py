"""Documents out of files of every format and compression, with their fields and ids."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from presence_ds.data import SourceConfig
from presence_ds.data.readers.documents import Document
from presence_ds.data.sources.finding import find_files
from presence_ds.data.sources.tally import Skipped
from tests.data.sources.files import COMPRESS, FILES, read


def test_text_file_is_one_document(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\n")
    (tmp_path / "a.md").write_text("# three\n")
    (tmp_path / ".hidden.txt").write_text("no")
    (tmp_path / "other.py").write_text("no")
    assert read(SourceConfig("s", str(tmp_path)))[0] == [Document("a.md", "# three\n"), Document("b.txt", "one\ntwo\n")]


def test_text_by_line_and_by_paragraph(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("\none\ntwo\n \n\nthree")
    lines, _ = read(SourceConfig("s", str(path), documents="line"))
    assert lines == [Document("a.txt:2", "one\n"), Document("a.txt:3", "two\n"), Document("a.txt:6", "three")]
    paragraphs, _ = read(SourceConfig("s", str(path), documents="paragraph"))
    assert paragraphs == [Document("a.txt:2", "one\ntwo\n"), Document("a.txt:6", "three")]


def test_jsonl_fields_and_ids(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"body": "one", "key": "x"}\n\n{"body": "zwei \\u00fc", "key": 7}\n')
    by_line = [Document("a.jsonl:1", "one"), Document("a.jsonl:3", "zwei ü")]
    assert read(SourceConfig("s", str(path), text_field="body"))[0] == by_line
    by_key = [Document("x", "one"), Document("7", "zwei ü")]
    assert read(SourceConfig("s", str(path), text_field="body", id_field="key"))[0] == by_key


@pytest.mark.parametrize("name", FILES)
def test_every_format_in_every_compression(tmp_path: Path, name: str) -> None:
    for ending, compress in COMPRESS.items():
        path = tmp_path / f"{name}{ending}"
        path.write_bytes(compress(FILES[name]))
        documents, skipped = read(SourceConfig("s", str(path), documents="line"))
        assert [document.text.rstrip() for document in documents] == ["one", "two"], path
        assert [document.id for document in documents] == [f"{path.name}:1", f"{path.name}:2"]
        assert skipped == Skipped()


@pytest.mark.parametrize("ending", list(COMPRESS)[1:])
def test_compressed_members_one_after_another_are_all_read(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.jsonl{ending}"
    path.write_bytes(b"".join(COMPRESS[ending](line) for line in FILES["a.jsonl"].splitlines(keepends=True)))
    assert [document.text for document in read(SourceConfig("s", str(path)))[0]] == ["one", "two"]


def test_parquet_fields_and_ids(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    texts = [f"text {number}" for number in range(2500)]
    pq.write_table(pa.table({"body": texts, "key": range(2500), "more": [{"a": 1}] * 2500}), path, row_group_size=700)
    documents, _ = read(SourceConfig("s", str(path), text_field="body"))
    assert documents == [Document(f"a.parquet:{number}", f"text {number - 1}") for number in range(1, 2501)]
    documents, _ = read(SourceConfig("s", str(path), text_field="body", id_field="key"))
    assert documents == [Document(str(number), f"text {number}") for number in range(2500)]


def test_globs_and_lists_give_each_file_once_with_distinct_ids(tmp_path: Path) -> None:
    for folder in ("x/deep", "y"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "part.txt").write_text(folder)
    assert [f.name for f in find_files(SourceConfig("s", f"{tmp_path}/**/*.txt"))] == ["x/deep/part.txt", "y/part.txt"]
    files = find_files(SourceConfig("s", [f"{tmp_path}/y/part.txt", f"{tmp_path}/x", f"{tmp_path}/*/part.txt"]))
    assert [f.name for f in files] == ["y/part.txt", "x/deep/part.txt"]


def test_stated_format_overrides_the_ending(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text('{"text": "one"}')
    assert read(SourceConfig("s", str(path), format="jsonl"))[0] == [Document("a.log:1", "one")]
    assert read(SourceConfig("s", str(path), format="text"))[0] == [Document("a.log", '{"text": "one"}')]


def test_size_limit_stops_reading(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "12345"}\n' * 10 + "malformed, but never reached\n")
    assert len(read(SourceConfig("s", str(path), max_megabytes=12e-6))[0]) == 3


def test_names_that_look_like_patterns_or_urls(tmp_path: Path) -> None:
    (tmp_path / "a*[1]::b.jsonl").write_text('{"text": "one"}')
    pq.write_table(pa.table({"text": ["two"]}), tmp_path / "a*[1].parquet")
    documents = [read(SourceConfig("s", f"{tmp_path}/{name}"))[0] for name in ("a*[1]::b.jsonl", "a*[1].parquet")]
    assert [[document.text for document in each] for each in documents] == [["one"], ["two"]]
