import bz2
import gzip
import hashlib
import json
import lzma
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from presence_ds.data import SourceConfig
from presence_ds.data.rows import Document
from presence_ds.data.sources.sources import Skipped, find_files, read_documents
from presence_ds.errors import DataError


def read(source: SourceConfig, max_bad_share: float = 0.0) -> tuple[list[Document], Skipped]:
    skipped = Skipped()
    return list(read_documents(source, find_files(source), max_bad_share, skipped)), skipped


def error_of(source: SourceConfig, max_bad_share: float = 0.0) -> str:
    """The message of the `DataError` that reading raises, which must be one line."""
    with pytest.raises(DataError) as caught:
        read(source, max_bad_share)
    assert "\n" not in str(caught.value)
    return str(caught.value)


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


def table_bytes(kind: str, texts: list[str]) -> bytes:
    table, sink = pa.table({"text": texts}), pa.BufferOutputStream()
    if kind == "parquet":
        pq.write_table(table, sink)
    else:
        with (pa.ipc.new_stream if kind == "stream" else pa.ipc.new_file)(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=1)
    return sink.getvalue().to_pybytes()


FILES = {  # name before the compression, and two documents in that format
    "a.txt": b"one\ntwo\n",
    "a.jsonl": b'{"text": "one"}\n{"text": "two"}\n',
    "a.json": b'\xef\xbb\xbf[{"text": "one"}, {"text": "two"}]',
    "columns.json": b'{\n"text": ["one", "two"],\n"n": [1, 2]}',
    "lines.json": b'{"text": "one"}\n{"text": "two"}\n',
    "a.parquet": table_bytes("parquet", ["one", "two"]),
    "stream.arrow": table_bytes("stream", ["one", "two"]),
    "file.arrow": table_bytes("file", ["one", "two"]),
}
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zstd.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


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


def test_names_that_look_like_patterns_or_urls(tmp_path: Path) -> None:
    (tmp_path / "a*[1]::b.jsonl").write_text('{"text": "one"}')
    pq.write_table(pa.table({"text": ["two"]}), tmp_path / "a*[1].parquet")
    documents = [read(SourceConfig("s", f"{tmp_path}/{name}"))[0] for name in ("a*[1]::b.jsonl", "a*[1].parquet")]
    assert [[document.text for document in each] for each in documents] == [["one"], ["two"]]


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
        "jsonl.zst": (zstd.compress(lines)[:-2000], 1000),
        "jsonl.bz2": (bz2.compress(lines)[:-2000], 0),
        "jsonl.xz": (lzma.compress(lines)[:-2000], 1000),
        "arrow": (arrow[: len(arrow) // 2 + 20], 900),
        "json": (b"[" + lines.replace(b"\n", b",")[:-300], 0),
        "parquet.zst": (zstd.compress(parquet)[:-2000], 0),
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
