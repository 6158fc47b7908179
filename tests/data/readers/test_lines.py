"""What a line and a document is, whatever ends lines and whatever a file begins with."""

import json
from pathlib import Path
from typing import Any, Literal

import pytest

from presence_ds.data import SourceConfig
from presence_ds.data.readers.documents import Document, Fields
from presence_ds.data.readers.part import Part
from presence_ds.data.readers.text import read_text
from presence_ds.data.sources.finding import find_files
from presence_ds.data.sources.reading import read_documents
from presence_ds.data.sources.tally import Skipped
from presence_ds.errors import DataError

ENDS = ("\n", "\r", "\r\n")
INSIDE = "form\ffeed, vertical\vtab, next\x85line, line\u2028separator, paragraph\u2029separator, file\x1cseparator"


def read(path: Path, max_bad_share: float = 0.0, **fields: Any) -> tuple[list[str], Skipped]:
    source, skipped = SourceConfig("s", str(path), **fields), Skipped()
    return [d.text for d in read_documents(source, find_files(source), max_bad_share, skipped)], skipped


def error_of(path: Path, **fields: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(path, **fields)
    assert "\n" not in str(caught.value)
    assert "\r" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("end", ENDS)
def test_lines_and_paragraphs_of_every_line_end(tmp_path: Path, end: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(end.join(["\ufeffone", INSIDE, "", "zwei"]).encode())
    assert read(path, documents="line")[0] == ["one\n", f"{INSIDE}\n", "zwei"]
    assert read(path, documents="paragraph")[0] == [f"one\n{INSIDE}\n", "zwei"]
    assert read(path)[0] == [f"one\n{INSIDE}\n\nzwei"]


def test_mixed_line_ends_and_the_place_of_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"a\r\rb\r\n\r\nc\n\rd\r")
    assert read(path, documents="paragraph")[0] == ["a\n", "b\n", "c\n", "d\n"]
    path.write_bytes(b"one\rtwo\rthr\xe9e\rfour")
    _, skipped = read(path, documents="line", max_bad_share=0.5)
    assert skipped.examples == [f"{path} line 3: not valid UTF-8"]
    assert f"{path} line 3: not valid UTF-8" in error_of(path)


@pytest.mark.parametrize("documents", ["line", "paragraph"])
def test_carriage_return_at_the_end_of_what_is_read_at_once(
    tmp_path: Path, documents: Literal["line", "paragraph"], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("presence_ds.data.readers.lines.PACKED_BYTES", 4)
    path = tmp_path / "a.txt"
    for content in (b"abc\r\ndef\rgh\r\r\nij", b"\r\r\r\n\n\rabc\r", b"abc\r\r\rdef\r\n\r\nghij\n"):
        path.write_bytes(content)
        whole = content.decode().replace("\r\n", "\n").replace("\r", "\n")
        expected = [line for line in whole.split("\n") if line]
        assert [text.strip("\n") for text in read(path, documents=documents)[0]] == expected or documents != "line"
        assert "".join(read(path, documents=documents)[0]).replace("\n", "") == whole.replace("\n", "")


@pytest.mark.parametrize("end", ENDS)
def test_parts_of_a_file_have_every_line_once(tmp_path: Path, end: str) -> None:
    path = tmp_path / "a.txt"
    lines = [f"line {number} {'x' * (number % 7)}" for number in range(30)]
    path.write_bytes(end.join(lines).encode())
    for count in (2, 3, 7, 60):
        found = [
            row for index in range(count) for row in read_text(path, "a", "line", Fields.max_bytes, Part(index, count))
        ]
        assert [row.text.strip("\n") for row in found if isinstance(row, Document)] == lines
        assert len({row.id for row in found if isinstance(row, Document)}) == len(lines)


def test_json_lines_end_at_line_feeds_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [{"text": INSIDE}, {"text": "line\u2028separator\u0000"}]
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode())
    assert read(path)[0] == [row["text"] for row in rows]
    path.write_bytes(b'{"text":\r"one"\r}\r\n{"text": "two"}\r\r\n')  # between tokens it is white space
    assert read(path)[0] == ["one", "two"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_json_lines_with_carriage_returns_alone_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "good.jsonl").write_text('{"text": "x"}\n' * 500)
    path = tmp_path / name
    path.write_bytes(b'{"text": "one"}\r{"text": "two"}\r')
    message = f"{path} cannot be read as JSON lines: its lines end in carriage returns (\\r) alone"
    assert message in error_of(path)
    assert message in error_of(tmp_path, max_bad_share=0.01)  # not one bad row of 501
    path.write_bytes(b'{"text": "one"} \r\r {"text": "' + b"long" * 100 + b'"}')
    source, skipped = SourceConfig("s", str(tmp_path)), Skipped()
    found = list(read_documents(source, find_files(source), 0.0, skipped, "skip", max_bytes=100))
    assert len(found) == 500
    assert [file.partition(":")[0] for file in skipped.files] == [f"{path} cannot be read as JSON lines"]
    path.write_bytes(b'[{"text": "one"},\r{"text": "two"}]\r')
    if name == "a.json":
        assert read(path)[0] == ["one", "two"]


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json"])
def test_other_encodings_and_compressions_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    content = "".join(json.dumps({"text": f"text {number}"}) + "\n" for number in range(1000))
    for encoding in ("utf-16", "utf-32"):
        path.write_text(content, encoding=encoding)
        assert f"{path} cannot be read as a file: it is UTF-16 or UTF-32, not UTF-8" in error_of(
            path, documents="line", max_bad_share=1.0
        )
    path.write_bytes(b"\x1f\x8b\x08rest")
    assert "it is compressed by gzip, which its name has to say with .gz at its end" in error_of(path)


def test_nul_bytes_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("".join(f"text {number}\n" for number in range(10)).encode("utf-16-be"))  # without its mark
    assert "none of the first 10 rows can be used" in error_of(path, documents="line", max_bad_share=1.0)
    path.write_bytes(b"one\ntwo\n" + bytes(100))  # a file that was not written to its end
    texts, skipped = read(path, documents="line", max_bad_share=0.5)
    assert texts == ["one\n", "two\n"]
    assert "line 3: holds a NUL byte" in skipped.examples[0]
    assert "line 1: holds a NUL byte" in error_of(path)
