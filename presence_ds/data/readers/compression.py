"""Files compressed as a whole, and what reading a file may raise."""

import bz2
import io
import lzma
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from presence_ds.data.readers.documents import UnreadableFile
from presence_ds.data.readers.hub_file import File
from presence_ds.errors import DataError

WINDOW_LOG = zstd.DecompressionParameter.window_log_max.bounds()[1]  # 31: 2 GiB
CHUNK_BYTES = 1 << 20
PACKED_BYTES = 1 << 15  # read at a time: what follows a member is copied once for every member in it


class NotReadError(Exception):
    """Nothing is wrong with a file as far as can be told, but it cannot be read here."""


class GzipDecompressor:
    """One gzip member, with the methods that the decompressors of the other formats have."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(zlib.MAX_WBITS | 16)
        self.needs_input = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._zlib, name)  # eof and unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        content = self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)
        self.needs_input = len(content) < max_length
        return content


class ZstdDecompressor:
    """One zstd frame, however long the window it was compressed with (`zstd --long=31`), or a skippable frame.

    The library refuses windows above 128 MiB unless told otherwise. Memory is taken for the window that a frame states,
    or for its content where that is less and stated.
    """

    def __init__(self) -> None:
        self._frame = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: WINDOW_LOG})

    def __getattr__(self, name: str) -> Any:
        return getattr(self._frame, name)  # eof, needs_input and unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        try:
            return self._frame.decompress(data, max_length)
        except zstd.ZstdError as error:
            if "Allocation" in str(error):
                raise MemoryError from None
            if "Dictionary mismatch" in str(error):
                raise NotReadError("it was compressed with a dictionary: compress it without") from None
            raise


DECOMPRESSORS: dict[str, Callable[[], Any]] = {
    ".gz": GzipDecompressor,
    ".bz2": bz2.BZ2Decompressor,
    ".xz": partial(lzma.LZMADecompressor, lzma.FORMAT_XZ),  # zeros would pass for an empty file of the format before it
    ".zst": ZstdDecompressor,
}
# pyarrow's errors are among the first three.
READ_ERRORS = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, zstd.ZstdError)


class Members(io.RawIOBase):
    """The content of a compressed file whose members may have been written one after another.

    `bz2.open` and `lzma.open` take what follows a member and is not another for padding: a fault in the head of a later
    one would end the file in silence. Here it raises, as does a member that is cut short.

    Attributes:
        member_bytes: decompressed size of the last member so far.
    """

    def __init__(self, packed: IO[bytes], new_decompressor: Callable[[], Any]) -> None:
        self.member_bytes = 0
        self._packed, self._new_decompressor = packed, new_decompressor
        self._member = new_decompressor()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a part of ``buffer``; its size, 0 at the end.

        Raises:
            EOFError: the last member is cut short.
        """
        while True:
            if self._member.eof:
                chunk = self._member.unused_data or self._packed.read(PACKED_BYTES)
                if not chunk:
                    return 0
                self._member, self.member_bytes = self._new_decompressor(), 0
            else:
                chunk = self._packed.read(PACKED_BYTES) if self._member.needs_input else b""
                if not chunk and self._member.needs_input:
                    raise EOFError("it ends in the middle of its compressed data")
            content = self._member.decompress(chunk, len(buffer))
            self.member_bytes += len(content)
            if content:
                buffer[: len(content)] = content
                return len(content)


@contextmanager
def open_file(path: File, kind: str = "a file", start: int = 0) -> Iterator[IO[bytes]]:
    """Open for reading, decompressing by the ending, at byte ``start`` of what is read.

    A compressed file is decompressed from its beginning for that.
    """
    with one_line(path, kind), path.open("rb") as stream:
        new_decompressor = DECOMPRESSORS.get(path.suffix.lower())
        if new_decompressor is None:
            stream.seek(start)
            yield stream
            return
        content = io.BufferedReader(Members(stream, new_decompressor), PACKED_BYTES)
        while start > 0 and (skipped := content.read(min(start, CHUNK_BYTES))):
            start -= len(skipped)
        yield content


@contextmanager
def uncompressed(path: File) -> Iterator[File]:
    """The file, or a temporary copy of it without its compression, for formats that are read in any order."""
    if path.suffix.lower() not in DECOMPRESSORS:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="presence_ds-") as folder:
        copy = Path(folder, path.stem)
        with open_file(path) as packed, copy.open("wb") as plain:
            shutil.copyfileobj(packed, plain, CHUNK_BYTES)
        yield copy


@contextmanager
def one_line(path: File, kind: str) -> Iterator[None]:
    """Turn what a library raises about a file into one line that names the file.

    Raises:
        UnreadableFile: it is damaged.
        DataError: it may be intact, so that it is not to be left out.
    """
    try:
        yield
    except NotReadError as error:
        raise DataError(f"{path} cannot be read as {kind}: {error}") from None
    except MemoryError as error:
        raise DataError(f"{path} cannot be read as {kind}: there is too little memory to decompress it") from error
    except READ_ERRORS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableFile(f"{path} cannot be read as {kind}: {reason}") from error
