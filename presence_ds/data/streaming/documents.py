"""The documents of one source on one lane, epoch after epoch, from any place on."""

import heapq
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from presence_ds.data.corpus.hashing import text_hash
from presence_ds.data.order.permutation import Permutation
from presence_ds.data.readers import START, Part, Place
from presence_ds.data.rows import BadRow, Document
from presence_ds.data.sources.sources import (
    EARLY_STOP_ROWS,
    MAX_EXAMPLES,
    OnBadFile,
    Skipped,
    SourceConfig,
    SourceFile,
    raise_too_many,
    read_part,
)
from presence_ds.errors import DataError

WHOLE_FILES = 4  # from so many files for every lane on, a file belongs to one lane


@dataclass(frozen=True)
class Share:
    """What a lane reads of a file: part ``index`` of ``count``."""

    file: SourceFile
    index: int = 0
    count: int = 1


class Cursor(NamedTuple):
    """A place in the documents of a source on a lane.

    Attributes:
        epoch: how often all of them have come before.
        number: shares read in this epoch.
        place: how far the next one has been read.
    """

    epoch: int = 0
    number: int = 0
    place: Place = START


def deal(files: list[SourceFile], lanes: int) -> list[list[Share]]:
    """What each lane reads: whole files, to about the same size, where there are many; otherwise a part of every file.

    Raises:
        DataError: a file is no longer there.
    """
    if len(files) < WHOLE_FILES * lanes:
        return [
            [Share(file, (lane + number) % lanes, lanes) for number, file in enumerate(files)] for lane in range(lanes)
        ]
    sizes = [size_of(file) for file in files]
    dealt: list[list[int]] = [[] for _ in range(lanes)]
    loads = [(0, lane) for lane in range(lanes)]
    for number in sorted(range(len(files)), key=lambda number: -sizes[number]):
        load, lane = heapq.heappop(loads)
        dealt[lane].append(number)
        heapq.heappush(loads, (load + sizes[number], lane))
    return [[Share(files[number]) for number in sorted(numbers)] for numbers in dealt]


def size_of(file: SourceFile) -> int:
    """Bytes of a file.

    Raises:
        DataError: it is no longer there.
    """
    try:
        return file.path.stat().st_size
    except OSError as error:
        raise DataError(f"{file.path} cannot be read ({error.strerror})") from None


@dataclass
class Tally:
    """Rows of one source that this process has read, on all its lanes, and those of them that could not be used."""

    source: SourceConfig
    files: list[SourceFile]
    max_bad_share: float
    rows: int = 0
    skipped: Skipped = field(default_factory=Skipped)

    def count(self, row: Document | BadRow) -> None:
        """Count a row, and say so if it is one of the first that cannot be used.

        Raises:
            DataError: of the first rows none can be used, or of many too many.
        """
        self.rows += 1
        if isinstance(row, BadRow):
            self.skipped.rows += 1
            if len(self.skipped.examples) < MAX_EXAMPLES:
                self.skipped.examples.append(f"{row.location}: {row.reason}")
                _say(f"skipped {self.skipped.examples[-1]}")
            if self.rows > EARLY_STOP_ROWS:
                self.check()
            elif self.skipped.rows == EARLY_STOP_ROWS:
                raise_too_many(self.source, self.files, self.rows, self.max_bad_share, self.skipped)

    def check(self) -> None:
        """Raise `DataError` if too many of the rows so far cannot be used."""
        if self.rows and (self.skipped.rows == self.rows or self.skipped.rows > self.max_bad_share * self.rows):
            raise_too_many(self.source, self.files, self.rows, self.max_bad_share, self.skipped)

    def leave_out(self, found: Skipped) -> None:
        """Note files left out, and say so where it is new."""
        for file in found.files:
            if file not in self.skipped.files:
                self.skipped.files.append(file)
                _say(f"left out {file}")


def _say(text: str) -> None:
    print(f"presence: warning: {text}", file=sys.stderr, flush=True)


class LaneDocuments:
    """The documents of one source on one lane, without end, in every epoch with the files in another order.

    Args:
        shares: what the lane reads.
        tally: where rows are counted.
        on_bad_file: as in `DataConfig`.
        max_bytes: of a document.
        left_out: hashes of the texts that are not to be trained on.
        seed: with ``key``, of the order of the files.
    """

    def __init__(
        self,
        shares: list[Share],
        tally: Tally,
        on_bad_file: OnBadFile,
        max_bytes: int,
        left_out: frozenset[bytes],
        seed: int,
        key: str,
    ) -> None:
        self.shares = shares
        self._tally = tally
        self._on_bad_file = on_bad_file
        self._max_bytes = max_bytes
        self._left_out = left_out
        self._seed = seed
        self._key = key

    def read(self, cursor: Cursor) -> Iterator[tuple[Cursor, Document, Cursor]]:
        """From ``cursor`` on every document between the places before and after it, without end.

        Raises:
            DataError: an epoch has no document, too many rows cannot be used, or a file cannot be read and
                ``on_bad_file`` is stop.
        """
        epoch, first, place = cursor
        is_empty = (first, place) == (0, START)
        while True:
            order = Permutation(len(self.shares), self._seed, "streaming", f"{self._key}\0{epoch}")
            for number in range(first, len(self.shares)):
                share = self.shares[int(order(np.array([number]))[0])]
                for before, document, after in self._read(share, place):
                    is_empty = False
                    yield Cursor(epoch, number, before), document, Cursor(epoch, number, after)
                place = START
            self._tally.check()
            if is_empty:
                self._raise_empty()
            epoch, first, is_empty = epoch + 1, 0, True

    def _read(self, share: Share, place: Place) -> Iterator[tuple[Place, Document, Place]]:
        part = Part(share.index, share.count, place)
        left_out = Skipped()
        rows = read_part(self._tally.source, share.file, part, left_out, self._on_bad_file, self._max_bytes)
        before = place
        for row in rows:
            self._tally.count(row)
            if isinstance(row, Document) and not (self._left_out and text_hash(row.text) in self._left_out):
                yield before, row, part.place
            before = part.place
        self._tally.leave_out(left_out)

    def _raise_empty(self) -> None:
        source, skipped = self._tally.source, self._tally.skipped
        if skipped.files:
            raise DataError(
                f'source "{source.name}": a lane has no file that can be read; the first that cannot is '
                f"{skipped.files[0]}"
            )
        raise DataError(
            f'source "{source.name}" has no document on one of the lanes: give it more text, or lower '
            f"data.streaming.lanes"
        )
