"""Files compressed as a whole, and what reading a file may raise."""

import bz2
import gzip
import lzma
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from presence_ds.data.rows import UnreadableFile

CHUNK_BYTES = 1 << 20
# Each of these reads members that were written one after another, and raises on a member that is cut short. What fsspec
# infers for .zst depends on what is installed, and one of its choices ends silently in both cases.
DECOMPRESSORS: dict[str, Callable[..., Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": zstd.open,
}
# pyarrow's errors are among the first three.
READ_ERRORS = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, zstd.ZstdError)


@contextmanager
def open_file(path: Path, kind: str = "a file") -> Iterator[IO[bytes]]:
    """Open for reading, decompressing by the ending."""
    with one_line(path, kind), DECOMPRESSORS.get(path.suffix.lower(), open)(path, "rb") as stream:
        yield stream


@contextmanager
def uncompressed(path: Path) -> Iterator[Path]:
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
def one_line(path: Path, kind: str) -> Iterator[None]:
    """Turn what a library raises about an unreadable file into one line that names the file."""
    try:
        yield
    except READ_ERRORS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableFile(f"{path} cannot be read as {kind}: {reason}") from error
