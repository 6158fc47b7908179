"""Files of datasets on the Hugging Face hub, read over the network where the readers stand in them."""

import io
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Literal, NamedTuple, TypeAlias, cast

from fsspec.spec import AbstractBufferedFile
from huggingface_hub import constants, hf_hub_url
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_backoff

from presence_ds.errors import DataError

READ_AHEAD_BYTES = 4 << 20  # of a file that is read through: each request costs a tenth of a second or more
REQUEST_BYTES = 32 << 20  # at most; what is lost when a connection breaks
RETRIES = 8  # of a request, after 1, 2, 4, ... and at most MAX_WAIT seconds: three minutes in all
MAX_WAIT = 60.0


class Stat(NamedTuple):
    """What is asked of `Path.stat`. A commit does not change, so that there is no time of change."""

    st_size: int
    st_mtime_ns: int = 0


@dataclass(frozen=True)
class HubFile:
    """A file of a dataset at one commit, with the methods of `Path` that readers use.

    Attributes:
        source: name of the source that reads it, for errors.
        dataset: name on the hub.
        commit: SHA-1 in hexadecimal digits.
        path: within the dataset.
        size: in bytes.
    """

    source: str
    dataset: str
    commit: str
    path: str
    size: int

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.path).suffix

    @property
    def stem(self) -> str:
        return PurePosixPath(self.path).stem

    def __str__(self) -> str:
        return f"hf://datasets/{self.dataset}@{self.commit}/{self.path}"

    def stat(self) -> Stat:
        return Stat(self.size)

    def open(self, mode: Literal["rb"] = "rb", buffering: int = READ_AHEAD_BYTES) -> IO[bytes]:
        """Open for reading. ``buffering``: bytes that are read at once; 0: those that are asked for, no more.

        Reading raises `DataError` when the hub cannot be reached for minutes or refuses the file. That is no
        `UnreadableFile`: a file that nothing is wrong with is not to be left out.
        """
        raw = _Ranges(self)
        return cast(IO[bytes], io.BufferedReader(raw, buffering) if buffering else raw)


File: TypeAlias = Path | HubFile


class _Ranges(AbstractBufferedFile):
    """The content of a file, each read of which is a request for those bytes; pyarrow takes less for the end.

    It is not `HfFileSystem`'s, which gives up after 23 seconds, and takes what a proxy sends for what was asked for.
    """

    def __init__(self, file: HubFile) -> None:
        super().__init__(None, file.path, size=file.size, cache_type="none")
        self._file = file

    def _fetch_range(self, start: int, end: int) -> bytes:
        end = min(end, self._file.size)
        starts = range(start, end, REQUEST_BYTES)
        return b"".join(self._request(begin, min(begin + REQUEST_BYTES, end)) for begin in starts)

    def _request(self, start: int, end: int) -> bytes:
        file = self._file
        url = hf_hub_url(file.dataset, file.path, repo_type="dataset", revision=file.commit)
        try:  # with the user's token, if any, and of the bytes as they are stored
            headers = {**build_hf_headers(), "Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
            response = http_backoff(
                "GET",
                url,
                max_retries=RETRIES,
                max_wait_time=MAX_WAIT,
                headers=headers,
                timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
            )
            hf_raise_for_status(response)
            content: bytes = response.content
            if len(content) != end - start:
                raise ValueError(f"{len(content)} bytes came for the {end - start} from {start} on")
        except Exception as error:  # of huggingface_hub, and of the HTTP client that its version uses
            raise DataError(
                f'source "{file.source}": {file} cannot be read from the hub: {reason_of(error)}'
            ) from error
        return content


def reason_of(error: Exception) -> str:
    """What an error of huggingface_hub or datasets says, in one line; of URLs, not the signature."""
    return re.sub(r"(https?://[^\s?']+)\?[^\s']*", r"\1", " ".join(str(error).split())) or type(error).__name__
