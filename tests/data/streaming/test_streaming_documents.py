"""What a lane reads: each document is on one lane, in every epoch, and reading goes on from any of them."""

import json
from collections import Counter
from contextlib import suppress
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from presence_ds.data import DataConfig, SourceConfig
from presence_ds.data.readers.documents import Document
from presence_ds.data.sources.finding import find_files
from presence_ds.data.sources.reading import read_documents
from presence_ds.data.sources.tally import Skipped, Tally
from presence_ds.data.streaming.documents import Cursor, LaneDocuments, deal
from presence_ds.errors import DataError
from tests.data.sources.files import COMPRESS

TEXTS = [f"text {number} " + "ä" * (number * 7 % 40) for number in range(120)]


def arrow_bytes(texts: list[str], stream: bool) -> bytes:
    table, sink = pa.table({"text": texts}), pa.BufferOutputStream()
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)
    return sink.getvalue().to_pybytes()


def parquet_bytes(texts: list[str]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": texts}), sink, row_group_size=11)
    return sink.getvalue().to_pybytes()


def lines(texts: list[str]) -> bytes:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


FORMATS = {  # by ending, and how documents stand in a text file
    "jsonl": (".jsonl", "file", lines),
    "json of lines": (".json", "file", lines),
    "json of rows": (".json", "file", lambda texts: json.dumps([{"text": text} for text in texts]).encode()),
    "text of lines": (".txt", "line", lambda texts: "\n".join(texts).encode()),
    "text of paragraphs": (".md", "paragraph", lambda texts: "\n \n\n".join(texts).encode()),
    "parquet": (".parquet", "file", parquet_bytes),
    "arrow file": (".arrow", "file", lambda texts: arrow_bytes(texts, stream=False)),
    "arrow stream": (".arrow", "file", lambda texts: arrow_bytes(texts, stream=True)),
}


def lanes_of(source: SourceConfig, lanes: int, on_bad_file: str = "stop") -> list[LaneDocuments]:
    files = find_files(source, streamed=True)
    tally = Tally(source, files, 1.0)
    config = DataConfig(on_bad_file=on_bad_file, max_document_megabytes=0.01)  # type: ignore[arg-type]
    return [LaneDocuments(shares, tally, config, frozenset(), lane) for lane, shares in enumerate(deal(files, lanes))]


def epoch_of(lane: LaneDocuments, epoch: int = 0) -> list[tuple[Cursor, Document, Cursor]]:
    """What a lane gives in one epoch."""
    found = []
    for item in lane.read(Cursor(epoch)):
        if item[0].epoch > epoch:
            break
        found.append(item)
    return found


@pytest.mark.parametrize("ending", COMPRESS)
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("num_files", [1, 3, 13])
def test_every_document_is_on_one_lane(name: str, ending: str, num_files: int, tmp_path: Path) -> None:
    """Whether files are divided or dealt whole, and going on at any document gives the rest."""
    suffix, documents, write = FORMATS[name]
    for number in range(num_files):
        (tmp_path / f"{number}{suffix}{ending}").write_bytes(COMPRESS[ending](write(TEXTS[number::num_files])))
    source = SourceConfig("s", str(tmp_path), documents=documents)  # type: ignore[arg-type]
    lanes = lanes_of(source, 3)
    texts: Counter[str] = Counter()
    ids = set()
    for lane in lanes:
        found = epoch_of(lane)
        assert sorted(document.id for _, document, _ in epoch_of(lane, 1)) == sorted(d.id for _, d, _ in found)
        texts.update(document.text.strip() for _, document, _ in found)
        ids |= {document.id for _, document, _ in found}
        for index in (0, 1, len(found) // 2, len(found) - 1):
            before, _, after = found[index]
            rest = [document for _, document, _ in found[index:]]
            assert [document for _, document, _ in islice(lane.read(before), len(rest))] == rest
            assert [document for _, document, _ in islice(lane.read(after), len(rest) - 1)] == rest[1:]
    assert texts == Counter(text.strip() for text in TEXTS)
    assert len(ids) == len(TEXTS)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=30), st.integers(1, 9), st.booleans())
def test_lines_of_any_length_are_on_one_lane(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], lanes: int, ends: bool
) -> None:
    path = tmp_path_factory.mktemp("lines") / "a.txt"
    path.write_text("\n".join("x" * size for size in sizes) + ("\n" if ends else ""))
    source = SourceConfig("s", str(path), documents="line")
    found = []
    for lane in lanes_of(source, lanes):
        with suppress(DataError):  # a lane without a document
            found += [len(document.text.strip()) for _, document, _ in epoch_of(lane)]
    assert sorted(found) == sorted(size for size in sizes if size)


def test_ids_of_the_first_lane_are_those_of_a_prepared_corpus(tmp_path: Path) -> None:
    """The other lanes of a divided file count lines from the byte where they begin; rows of tables are always known."""
    (tmp_path / "a.jsonl").write_bytes(lines(TEXTS))
    pq.write_table(pa.table({"text": TEXTS}), tmp_path / "a.parquet", row_group_size=11)
    for name in ("a.jsonl", "a.parquet"):
        source = SourceConfig("s", str(tmp_path / name))
        known = {d.text: d.id for d in read_documents(source, find_files(source), 0.0, Skipped())}
        first, second = lanes_of(source, 2)
        assert all(document.id == known[document.text] for _, document, _ in epoch_of(first))
        if name == "a.parquet":
            assert all(document.id == known[document.text] for _, document, _ in epoch_of(second))
        else:
            half = len(lines(TEXTS)) // 2
            assert epoch_of(second)[0][1].id == f"a.jsonl@{half}:1"


@pytest.mark.parametrize("name", ["jsonl", "text of lines", "parquet"])
def test_nothing_before_a_place_is_read(name: str, tmp_path: Path) -> None:
    """What is in the file before it is overwritten when the place is known; of parquet, before its row group."""
    suffix, documents, write = FORMATS[name]
    path = tmp_path / f"a{suffix}"
    path.write_bytes(write(TEXTS))
    (lane,) = lanes_of(SourceConfig("s", str(path), documents=documents), 1)  # type: ignore[arg-type]
    found = epoch_of(lane)
    index = next(index for index, (_, document, _) in enumerate(found) if document.text.strip() == TEXTS[90])
    start = found[index][0].place.byte
    if name == "parquet":
        start = pq.read_metadata(path).row_group(90 // 11).column(0).dictionary_page_offset
    with path.open("r+b") as file:
        file.write(b"PAR1" + b"\xff" * (start - 5) + b"\n")
    rest = [document for _, document, _ in islice(lane.read(found[index][0]), 30)]
    assert rest == [document for _, document, _ in found[index : index + 30]]
    if name == "parquet":
        with pytest.raises(DataError, match="cannot be read as a parquet file"):
            epoch_of(lane)
    else:
        assert [document.text for _, document, _ in epoch_of(lane)] == [document.text for document in rest]


def test_files_come_in_another_order_in_every_epoch(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"{number:02}.txt").write_text("x" * (number + 1))
    lanes = lanes_of(SourceConfig("s", str(tmp_path)), 4)
    orders = [[[document.id for _, document, _ in epoch_of(lane, epoch)] for epoch in range(3)] for lane in lanes]
    for of_lane in orders:
        assert of_lane[0] != of_lane[1] != of_lane[2]
        assert sorted(of_lane[0]) == sorted(of_lane[1]) == sorted(of_lane[2])
    sizes = [sum(int(name[:2]) + 1 for name in of_lane[0]) for of_lane in orders]
    assert max(sizes) - min(sizes) <= 4
