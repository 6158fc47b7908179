"""Lines of a file, none of which is held in memory beyond the size of a document."""

import io
import re
from collections.abc import Iterator
from typing import IO, Any

from presence_ds.data.readers.compression import CHUNK_BYTES, DECOMPRESSORS, PACKED_BYTES, one_line, open_file
from presence_ds.data.readers.hub_file import File
from presence_ds.data.readers.part import Part, Place

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
LONE_RETURN = re.compile(rb"\r(?!\n)")
HEADS = {  # what a file of text cannot begin with
    b"\xff\xfe": "UTF-16 or UTF-32, not UTF-8 (iconv converts it)",
    b"\xfe\xff": "UTF-16 or UTF-32, not UTF-8 (iconv converts it)",
    b"\x1f\x8b": "compressed by gzip, which its name has to say with .gz at its end",
    b"\x28\xb5\x2f\xfd": "compressed by zstd, which its name has to say with .zst at its end",
    b"\xfd7zXZ\0": "compressed by xz, which its name has to say with .xz at its end",
    b"BZh91AY&SY": "compressed by bzip2, which its name has to say with .bz2 at its end",
    b"PK\3\4": "a zip archive, which is not read",
}


class Lines:
    """Lines of a part of a file, with their numbers from 1; a line belongs to the part in which it begins.

    Of a line longer than ``max_bytes`` there are only the first ``max_bytes`` + 1 bytes. Lines end with a line feed;
    of a ``text`` also with a carriage return alone, which becomes a line feed. JSON has those between its tokens.

    Iterating raises `UnreadableFile` for a file that is no UTF-8 text by its first bytes.
    """

    def __init__(self, path: File, part: Part, max_bytes: int, *, text: bool) -> None:
        self._path, self._part, self._max_bytes, self._text = path, part, max_bytes, text
        self._begin, self._end = 0, None
        if path.suffix.lower() not in DECOMPRESSORS:
            with one_line(path, "a file"):
                self._begin, self._end = part.bounds(path.stat().st_size)

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        part, begin = self._part, self._begin
        start = part.place.byte if part.place.row else max(0, begin - 1)
        with open_file(self._path, start=start) as content:
            if start == 0:
                check_head(content)
            stream = io.BufferedReader(_LineFeeds(content), PACKED_BYTES) if self._text else content
            if begin and not part.place.row:  # in a line of the part before, or at its end
                start += _skip_line(stream)
                part.place = Place(0, start)
            number, byte, _ = part.place
            while (self._end is None or byte < self._end) and (raw := stream.readline(self._max_bytes + 1)):
                number, byte = number + 1, byte + len(raw)
                if not raw.endswith(b"\n"):
                    byte += _skip_line(stream)
                part.place = part.place._replace(row=number, byte=byte)
                yield number, raw

    def id(self, name: str, number: int) -> str:
        """The id of the document that begins in this line of the file ``name``."""
        return f"{name}@{self._begin}:{number}" if self._begin else f"{name}:{number}"

    def location(self, number: int) -> str:
        """Where the line is."""
        return f"{self._path} line {number}" + (f" from byte {self._begin} on" if self._begin else "")


def check_head(stream: IO[bytes]) -> None:
    """Raise ValueError if the first bytes of a file are none of UTF-8 text; nothing is read of it."""
    head = stream.peek(max(map(len, HEADS)))  # type: ignore[attr-defined]  # of BufferedReader
    for beginning, what in HEADS.items():
        if head.startswith(beginning):
            raise ValueError(f"it is {what}")


class _LineFeeds(io.RawIOBase):
    """A stream with a line feed in the place of every carriage return that none follows; places stay as they are."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._next = stream, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._next + self._stream.read(len(buffer) - len(self._next))
        self._next = self._stream.read(1) if content.endswith(b"\r") else b""
        if b"\r" in content:
            content = LONE_RETURN.sub(b"\n", content + self._next)[: len(content)]
        buffer[: len(content)] = content
        return len(content)


def _skip_line(stream: IO[bytes]) -> int:
    """Read to the end of the line and hold none of it; the number of bytes."""
    skipped = 0
    while raw := stream.readline(CHUNK_BYTES):
        skipped += len(raw)
        if raw.endswith(b"\n"):
            break
    return skipped
