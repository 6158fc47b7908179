"""A part of a file, and a place in it from which reading goes on."""

from dataclasses import dataclass
from typing import NamedTuple


class Place(NamedTuple):
    """How far a part has been read.

    Attributes:
        row: rows, of text and JSON lines, before it.
        byte: of the decompressed content, where the next line begins; 0 in what is not read by lines.
        given: documents and bad rows that the rows before it gave; not counted in tables.
    """

    row: int = 0
    byte: int = 0
    given: int = 0


START = Place()


@dataclass
class Part:
    """Part ``index`` of ``count`` of a file. Readers begin at its place, and move that on before they yield a row.

    Attributes:
        strided: whether the part is every ``count``-th row of the file, and not a stretch of it.
    """

    index: int = 0
    count: int = 1
    place: Place = START
    strided: bool = False

    def bounds(self, size: int) -> tuple[int, int | None]:
        """Where the stretch begins and ends in a file of ``size`` bytes or rows; the last one ends with the file."""
        if self.strided:
            return 0, None
        last = self.index == self.count - 1
        return size * self.index // self.count, None if last else size * (self.index + 1) // self.count

    def takes(self) -> bool:
        """Count a row that is found; whether it is in the part, as all of a stretch are."""
        number = self.place.given
        self.place = self.place._replace(given=number + 1)
        return not self.strided or number % self.count == self.index
