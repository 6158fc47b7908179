"""Damage in source files: none of it goes unnoticed that the format can tell, and no altered row is used."""

import hashlib
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from presence_ds.data import DataConfig, SourceConfig
from presence_ds.data.readers import check_unchanged
from presence_ds.data.rows import Document, UnreadableFile
from presence_ds.data.sources.sources import Skipped, find_files, read_documents
from presence_ds.errors import ConfigError
from tests.data.sources.test_sources import COMPRESS, error_of, read, table_bytes

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

TEXTS = [hashlib.sha256(bytes([n % 256, n // 256])).hexdigest()[: n % 60 + 1] for n in range(400)]
CHECKED = {**COMPRESS, ".zst": lambda raw: zstd.compress(raw, options={zstd.CompressionParameter.checksum_flag: 1})}


def read_skipping(path: Path, max_bad_share: float = 1.0) -> tuple[list[str], Skipped]:
    """The texts of a file, lines if it is text, where damaged files are skipped; a good file stands before it."""
    before = path.with_name("before.jsonl")
    before.write_text('{"text": "before"}\n')
    source, skipped = SourceConfig("s", [str(before), str(path)], documents="line"), Skipped()
    documents = list(read_documents(source, find_files(source), max_bad_share, skipped, "skip"))
    return [document.text.rstrip("\n") for document in documents[1:]], skipped


def cut(raw: bytes, choose: random.Random) -> bytes:
    return raw[: choose.randrange(len(raw))]


def change(raw: bytes, choose: random.Random) -> bytes:
    """A bit, a few bytes or a run of them changed, taken out or put in, and the last bytes as they were."""
    end = len(raw) - 24
    start = choose.randrange(end)
    stop = min(end, start + choose.randrange(1, 200))
    kind = choose.choice(["bit", "bytes", "run", "zeros", "out", "in"])
    if kind == "out":
        return raw[:start] + raw[stop:]
    if kind == "in":
        return raw[:start] + choose.randbytes(stop - start) + raw[start:]
    changed = bytearray(raw)
    if kind == "bit":
        changed[start] ^= 1 << choose.randrange(8)
    elif kind == "bytes":
        for _ in range(choose.randrange(1, 6)):
            changed[choose.randrange(end)] = choose.randrange(256)
    else:
        changed[start:stop] = bytes(stop - start) if kind == "zeros" else choose.randbytes(stop - start)
    return bytes(changed)


def packed(ending: str, documents: str, choose: random.Random) -> tuple[str, bytes]:
    """A file with `TEXTS`, one member or two, and its name."""
    lines = [f"{text}\n" if documents == "txt" else json.dumps({"text": text}) + "\n" for text in TEXTS]
    raw = "".join(lines).encode()
    middle = choose.choice([0, choose.randrange(len(raw))])
    parts = [raw] if middle == 0 else [raw[:middle], raw[middle:]]
    return f"a.{documents}{ending}", b"".join(map(CHECKED[ending], parts))


def table(ending: str, choose: random.Random) -> tuple[str, bytes]:
    """A file with `TEXTS`, with checksums if it is parquet, and its name."""
    if ending == ".arrow":
        return f"a{ending}", table_bytes(choose.choice(["stream", "file"]), TEXTS)
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.table({"text": TEXTS}),
        sink,
        row_group_size=choose.choice([50, 400]),
        data_page_size=choose.choice([200, 1 << 20]),
        use_dictionary=choose.choice([True, False]),
        write_page_checksum=True,
    )
    return f"a{ending}", sink.getvalue().to_pybytes()


@pytest.mark.parametrize(
    ("ending", "damage"),
    [*((ending, damage) for ending in [*list(CHECKED)[1:], ".parquet"] for damage in (cut, change)), (".arrow", cut)],
)
def test_rows_of_a_damaged_file_are_as_written(
    tmp_path: Path, ending: str, damage: Callable[[bytes, random.Random], bytes]
) -> None:
    choose = random.Random(f"{ending} {damage.__name__}")
    gave, at_fault = 0, 0
    for number in range(40):
        if ending in CHECKED:
            name, whole = packed(ending, choose.choice(["txt", "jsonl"]), choose)
        else:
            name, whole = table(ending, choose)
        damaged = damage(whole, choose)
        (tmp_path / name).write_bytes(damaged)
        texts, skipped = read_skipping(tmp_path / name)
        assert texts == TEXTS[: len(texts)], (number, name)
        gave += bool(texts)
        at_fault += len(skipped.files) == 1 or texts == TEXTS
    assert at_fault >= 35
    if damage is cut and ending in (".gz", ".xz", ".arrow"):
        assert gave >= 10


@pytest.mark.parametrize("ending", list(COMPRESS)[1:])
def test_compressed_file_without_a_byte_is_damaged(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.jsonl{ending}"
    path.write_bytes(b"")
    assert f"{path} cannot be read as a file: it ends in the middle of its compressed data" in error_of(
        SourceConfig("s", str(path))
    )
    texts, skipped = read_skipping(path)
    assert texts == []
    assert len(skipped.files) == 1
    path.write_bytes(COMPRESS[ending](b""))
    assert read_skipping(path) == ([], Skipped())


@pytest.mark.parametrize("ending", list(COMPRESS)[1:])
def test_fault_in_the_head_of_a_later_member_is_noticed(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.txt{ending}"
    first, second = (COMPRESS[ending](text.encode()) for text in ("one\n", "two\n"))
    for fault in (b"\0\0" + second[2:], bytes(len(second))):
        path.write_bytes(first + fault)
        assert f"{path} cannot be read as a file: " in error_of(SourceConfig("s", str(path), documents="line"))
        texts, skipped = read_skipping(path)
        assert texts == []
        assert len(skipped.files) == 1


@pytest.mark.parametrize(("ending", "end"), [(".gz", 8), (".bz2", 11), (".xz", 16)])
def test_change_that_looks_like_a_cut_is_told_from_one(tmp_path: Path, ending: str, end: int) -> None:
    """A decompressor that a change leads past the end says what it says of a file that is cut short."""
    whole = COMPRESS[ending]("".join(f"{text}\n" for text in TEXTS).encode())
    middle = len(whole) // 2
    path = tmp_path / f"a.txt{ending}"
    path.write_bytes(whole[:middle])
    check_unchanged(path)
    path.write_bytes(whole[:middle] + whole[-end:])
    with pytest.raises(
        UnreadableFile, match="compressed data, yet it has the end of a whole file: bytes of it were ch"
    ):
        check_unchanged(path)


def test_arrow_stream_without_its_end_mark_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    stream = table_bytes("stream", ["one", "two"])
    path.write_bytes(stream[:-8])
    assert f"{path} cannot be read as an arrow file: it ends without an end-of-stream mark" in error_of(
        SourceConfig("s", str(path))
    )
    texts, skipped = read_skipping(path)
    assert texts == ["one", "two"]
    assert "(2 good rows before that)" in skipped.files[0]
    path.write_bytes(stream[:-8] + bytes(4))  # the mark of old writers
    assert read_skipping(path) == (["one", "two"], Skipped())


def test_arrow_streams_one_after_another_are_all_read(tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    stream = table_bytes("stream", ["one", "two"])
    path.write_bytes(stream + table_bytes("stream", ["three"]))
    documents, _ = read(SourceConfig("s", str(path)))
    assert documents == [Document(f"a.arrow:{n}", text) for n, text in enumerate(["one", "two", "three"], start=1)]
    for rest in (b"junk", bytes(64)):
        path.write_bytes(stream + rest)
        texts, skipped = read_skipping(path)
        assert texts == ["one", "two"]
        assert len(skipped.files) == 1


@pytest.mark.parametrize("kind", ["parquet", "stream", "file"])
@pytest.mark.parametrize("type_", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_value_that_is_not_utf8_is_a_bad_row(tmp_path: Path, kind: str, type_: pa.DataType) -> None:
    values = [b"one", b"caf\xe9", "zwei ü".encode()]
    if pa.types.is_dictionary(type_):
        text = pa.DictionaryArray.from_arrays(pa.array([0, 1, None, 2], pa.int32()), pa.array(values).view(pa.string()))
    else:
        binary = pa.large_binary() if type_ == pa.large_string() else pa.binary()
        text = pa.array([*values[:2], None, values[2]], binary).view(type_)
    ids = pa.array([b"a", b"b", b"c", b"\xff"]).view(pa.string())
    rows, sink = pa.table({"text": text, "id": ids}), pa.BufferOutputStream()
    if kind == "parquet":
        pq.write_table(rows, sink)
    else:
        with (pa.ipc.new_stream if kind == "stream" else pa.ipc.new_file)(sink, rows.schema) as writer:
            writer.write_table(rows)
    path = tmp_path / ("a.parquet" if kind == "parquet" else "a.arrow")
    path.write_bytes(sink.getvalue())
    documents, skipped = read(SourceConfig("s", str(path)), max_bad_share=0.5)
    assert [document.text for document in documents] == ["one", "zwei ü"]
    assert skipped.examples == [
        f'{path} row 2: field "text" is not valid UTF-8',
        f'{path} row 3: field "text" is missing or null',
    ]
    documents, skipped = read(SourceConfig("s", str(path), id_field="id"), max_bad_share=0.75)
    assert documents == [Document("a", "one")]
    assert skipped.examples[2] == f'{path} row 4: field "id" is not valid UTF-8'


def test_source_below_its_minimum_stops(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "12345ü"}\n' * 10)  # 70 bytes of UTF-8
    assert len(read(SourceConfig("s", str(path), min_megabytes=70e-6, max_megabytes=70e-6))[0]) == 10
    assert error_of(SourceConfig("s", str(path), min_megabytes=71e-6)) == (
        'source "s" has 7e-05 megabytes of text, less than its min_megabytes 7.1e-05: are files missing or cut short?'
    )


@pytest.mark.parametrize(
    ("least", "most", "message"),
    [
        (0.0, None, "min_megabytes is 0.0: it must be above 0, or null"),
        (float("nan"), None, "min_megabytes is nan: it must be above 0"),
        (float("inf"), None, "min_megabytes is inf: it must be above 0 and finite"),
        (3.0, 2.0, "min_megabytes is 3, above max_megabytes 2, where reading stops"),
    ],
)
def test_minimum_that_cannot_be_used_is_refused(least: float, most: float | None, message: str) -> None:
    config = DataConfig([SourceConfig("s", "a.txt", min_megabytes=least, max_megabytes=most)])
    with pytest.raises(ConfigError, match=rf"data\.sources\[0\]\.{message}"):
        config.validate()
