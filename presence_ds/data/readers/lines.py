"""Lines of a file, none of which is held in memory beyond the size of a document."""

from collections.abc import Iterator
from typing import IO

from presence_ds.data.readers.compression import CHUNK_BYTES

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
DEFAULT_MAX_BYTES = 64_000_000  # of a document


def lines(stream: IO[bytes], max_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers from 1; of a line longer than ``max_bytes`` only the first ``max_bytes`` + 1 bytes."""
    number = 0
    while raw := stream.readline(max_bytes + 1):
        number += 1
        yield number, raw
        if len(raw) > max_bytes:
            while raw and not raw.endswith(b"\n"):
                raw = stream.readline(CHUNK_BYTES)


def too_long(max_bytes: int) -> str:
    return f"longer than max_document_megabytes {max_bytes / 1e6:g}"
