"""Compressed files compared with their checksums before a row of them is used.

A checksum comes after what it covers, most often at the end of the file: whoever uses rows as they are decompressed has
used altered ones by the time a fault shows.
"""

import os
from typing import IO

from presence_ds.data.readers.compression import CHUNK_BYTES, DECOMPRESSORS, Members, one_line
from presence_ds.data.readers.hub_file import File

TAIL_BYTES = 16
GZIP_LENGTH_TOLERANCE = 1 << 22
BZIP2_END_MARK = 0x177245385090


def check_unchanged(path: File) -> None:
    """Read a compressed file to its end, holding none of it, so that its checksums are compared.

    A file that was only cut short passes, as what comes before the cut is as it was written. It is told from one in
    which a change leads the decompressor past the end by what the format leaves there (zstd leaves nothing). A file
    that is not compressed passes unread.

    Raises:
        UnreadableFile: bytes of it were changed, as far as its format can tell.
    """
    ending = path.suffix.lower()
    if ending not in DECOMPRESSORS:
        return
    buffer = bytearray(CHUNK_BYTES)
    with one_line(path, "a file"), path.open("rb") as packed:
        content = Members(packed, DECOMPRESSORS[ending])
        try:
            while content.readinto(buffer):
                pass
        except EOFError as error:
            if _has_end(ending, _tail(packed), content.member_bytes):
                raise ValueError(f"{error}, yet it has the end of a whole file: bytes of it were changed") from None


def _tail(packed: IO[bytes]) -> bytes:
    size = packed.seek(0, os.SEEK_END)
    packed.seek(max(0, size - TAIL_BYTES))
    return packed.read()


def _has_end(ending: str, tail: bytes, member_bytes: int) -> bool:
    """Whether a file's last bytes are what its format puts there; ``member_bytes``: what its last member gave."""
    if ending == ".gz":  # the member's size modulo 2³²; a change can have moved it by what a few blocks hold
        difference = (int.from_bytes(tail[-4:], "little") - member_bytes) % 2**32
        return min(difference, 2**32 - difference) <= GZIP_LENGTH_TOLERANCE
    if ending == ".bz2":  # a mark of 48 bits, a checksum of 32, and up to 7 bits to the end of the byte
        bits = int.from_bytes(tail, "big")
        return any(bits >> (32 + padding) & (2**48 - 1) == BZIP2_END_MARK for padding in range(8))
    return ending == ".xz" and tail.endswith(b"YZ")
