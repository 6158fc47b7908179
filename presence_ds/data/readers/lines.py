"""Lines of a file, none of which is held in memory beyond the size of a document."""

from collections.abc import Iterator
from typing import IO

from presence_ds.data.readers.compression import CHUNK_BYTES, DECOMPRESSORS, one_line, open_file
from presence_ds.data.readers.hub_file import File
from presence_ds.data.readers.part import Part, Place

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
DEFAULT_MAX_BYTES = 64_000_000  # of a document


class Lines:
    """Lines of a part of a file, with their numbers from 1; a line belongs to the part in which it begins.

    Of a line longer than ``max_bytes`` there are only the first ``max_bytes`` + 1 bytes.
    """

    def __init__(self, path: File, part: Part, max_bytes: int) -> None:
        self._path, self._part, self._max_bytes = path, part, max_bytes
        self._begin, self._end = 0, None
        if path.suffix.lower() not in DECOMPRESSORS:
            with one_line(path, "a file"):
                self._begin, self._end = part.bounds(path.stat().st_size)

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        part, begin = self._part, self._begin
        start = part.place.byte if part.place.row else max(0, begin - 1)
        with open_file(self._path, start=start) as stream:
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


def _skip_line(stream: IO[bytes]) -> int:
    """Read to the end of the line and hold none of it; the number of bytes."""
    skipped = 0
    while raw := stream.readline(CHUNK_BYTES):
        skipped += len(raw)
        if raw.endswith(b"\n"):
            break
    return skipped


def too_long(max_bytes: int) -> str:
    return f"longer than max_document_megabytes {max_bytes / 1e6:g}"
