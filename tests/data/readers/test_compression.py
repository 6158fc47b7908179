"""Compressed files that nothing is wrong with, as other programs write them."""

import bz2
import gzip
import lzma
import resource
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from presence_ds.data import SourceConfig
from presence_ds.data.readers.checksums import check_unchanged
from presence_ds.data.sources.finding import find_files
from presence_ds.data.sources.reading import OnBadFile, read_documents
from presence_ds.data.sources.tally import Skipped
from presence_ds.errors import DataError

LINES = b"".join(b'{"text": "document %d"}\n' % number for number in range(50))
SKIPPABLE = struct.pack("<II", 0x184D2A50, 5) + b"index"


def zstd_long(content: bytes, window_log: int) -> bytes:
    """As `zstd --long=N` writes what it is piped, of a size that it does not know."""
    parameters = zstd.CompressionParameter
    options = {parameters.window_log: window_log, parameters.enable_long_distance_matching: 1}
    packer = zstd.ZstdCompressor(options=options)
    return packer.compress(content) + packer.flush()


def with_dictionary(content: bytes) -> bytes:
    dictionary = zstd.train_dict([b'{"text": "document %d of many"}' % number for number in range(2000)], 1000)
    return zstd.compress(content, zstd_dict=dictionary)


def texts(path: Path, on_bad_file: OnBadFile) -> list[str]:
    source, skipped = SourceConfig("s", str(path)), Skipped()
    found = [document.text for document in read_documents(source, find_files(source), 0.0, skipped, on_bad_file)]
    assert skipped == Skipped()
    return found


WHOLE = {
    "window_28.zst": zstd_long(LINES, 28),
    "window_31.zst": zstd_long(LINES, 31),
    "frames.zst": zstd_long(LINES[:500], 31) + zstd.compress(b"") + zstd.compress(LINES[500:]),
    "skippable.zst": SKIPPABLE + zstd.compress(LINES[:500]) + SKIPPABLE + zstd.compress(LINES[500:]) + SKIPPABLE,
    "members.gz": gzip.compress(LINES[:500]) + gzip.compress(b"") + gzip.compress(LINES[500:]),
    "named.gz": gzip.compress(LINES)[:3] + b"\x08" + gzip.compress(LINES)[4:10] + b"name\0" + gzip.compress(LINES)[10:],
    "streams.bz2": bz2.compress(LINES[:500], 1) + bz2.compress(b"") + bz2.compress(LINES[500:]),
    "large_dictionary.xz": lzma.compress(LINES, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 26}]),
    "unchecked.xz": lzma.compress(LINES, check=lzma.CHECK_NONE) + lzma.compress(b""),
}


@pytest.mark.parametrize("on_bad_file", ["stop", "skip"])
@pytest.mark.parametrize("name", WHOLE)
def test_whole_file_is_read(tmp_path: Path, name: str, on_bad_file: OnBadFile) -> None:
    stem, ending = name.split(".")
    path = tmp_path / f"{stem}.jsonl.{ending}"
    path.write_bytes(WHOLE[name])
    assert texts(path, on_bad_file) == [f"document {number}" for number in range(50)]


@contextmanager
def little_memory(more: int = 1 << 28) -> Iterator[None]:
    """Let this process take no more than so many more bytes."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.parametrize("on_bad_file", ["stop", "skip"])
def test_intact_file_that_cannot_be_read_is_not_left_out(tmp_path: Path, on_bad_file: OnBadFile) -> None:
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(with_dictionary(LINES))
    with pytest.raises(DataError, match=r"a\.jsonl\.zst cannot be read as a file: it was compressed with a dictionary"):
        texts(path, on_bad_file)
    path.write_bytes(WHOLE["window_31.zst"])
    with (
        little_memory(),
        pytest.raises(DataError, match=r"a\.jsonl\.zst cannot be read as a file: there is too little memory"),
    ):
        texts(path, on_bad_file)


def test_change_of_the_window_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.zst"
    whole = bytearray(WHOLE["window_31.zst"])
    whole[5] = 0xFF  # of 2⁴¹ bytes and more, which nothing writes
    path.write_bytes(whole)
    with pytest.raises(DataError, match="too much memory") as caught:
        check_unchanged(path)
    assert type(caught.value) is not DataError
