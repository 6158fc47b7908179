"""The documents of one source on one lane, epoch after epoch, from any place on."""

import heapq
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from presence_ds.data.config import DataConfig
from presence_ds.data.hashing import text_hash
from presence_ds.data.order.permutation import Permutation
from presence_ds.data.readers.documents import BadRow, Document
from presence_ds.data.readers.part import START, Part, Place
from presence_ds.data.sources.finding import SourceFile
from presence_ds.data.sources.reading import read_part
from presence_ds.data.sources.tally import EARLY_STOP_ROWS, Skipped, Tally
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


def _say(text: str) -> None:
    print(f"presence: warning: {text}", file=sys.stderr, flush=True)


class LaneDocuments:
    """The documents of one source on one lane, without end, in every epoch with the files in another order.

    Args:
        shares: what the lane reads.
        tally: where the rows are counted that this process reads on all its lanes.
        config: how they are read.
        left_out: hashes of the texts that are not to be trained on.
        lane: number of the lane.
    """

    def __init__(
        self, shares: list[Share], tally: Tally, config: DataConfig, left_out: frozenset[bytes], lane: int
    ) -> None:
        self.shares = shares
        self._tally = tally
        self._limits = (config.on_bad_file, round(config.max_document_megabytes * 1e6))
        self._left_out = left_out
        self._seed, self._key = config.seed, f"{tally.source.name}\0{lane}"

    def permutation(self, size: int, purpose: str, number: int) -> Permutation:
        """Of so many things of this source on this lane, the ``number``-th time that they are shuffled."""
        return Permutation(size, self._seed, purpose, f"{self._key}\0{number}")

    def read(self, cursor: Cursor) -> Iterator[tuple[Cursor, Document, Cursor]]:
        """From ``cursor`` on every document between the places before and after it, without end.

        Raises:
            DataError: an epoch has no document, too many rows cannot be used, or a file cannot be read and
                ``on_bad_file`` is stop.
        """
        epoch, first, place = cursor
        is_empty = (first, place) == (0, START)
        while True:
            order = self.permutation(len(self.shares), "streaming", epoch)
            for number in range(first, len(self.shares)):
                share = self.shares[int(order(np.array([number]))[0])]
                for before, document, after in self._read(share, place):
                    is_empty = False
                    yield Cursor(epoch, number, before), document, Cursor(epoch, number, after)
                place = START
            if self._tally.rows:
                self._tally.check()
            if is_empty:
                where, files = f'source "{self._tally.source.name}"', self._tally.skipped.files
                if files:
                    raise DataError(
                        f"{where}: a lane has no file that can be read; the first that cannot is {files[0]}"
                    )
                raise DataError(
                    f"{where} has no document on one of the lanes: give it more text, or lower data.streaming.lanes"
                )
            epoch, first, is_empty = epoch + 1, 0, True

    def _read(self, share: Share, place: Place) -> Iterator[tuple[Place, Document, Place]]:
        part = Part(share.index, share.count, place)
        left_out = Skipped()
        before = place
        for row in read_part(self._tally.source, share.file, part, left_out, *self._limits):
            self._count(row)
            if isinstance(row, Document) and not (self._left_out and text_hash(row.text) in self._left_out):
                yield before, row, part.place
            before = part.place
        known = self._tally.skipped.files
        for file in left_out.files:
            if file not in known:
                known.append(file)
                _say(f"left out {file}")

    def _count(self, row: Document | BadRow) -> None:
        """Count a row, and say so if it is one of the first that cannot be used.

        Raises:
            DataError: of the first rows none can be used, or of many too many.
        """
        examples = self._tally.skipped.examples
        known = len(examples)
        self._tally.count(row)
        for example in examples[known:]:
            _say(f"skipped {example}")
        if isinstance(row, BadRow) and self._tally.rows > EARLY_STOP_ROWS:
            self._tally.check()
