"""What of a source cannot be used, counted while it is read."""

from dataclasses import dataclass, field

from presence_ds.data.readers.documents import BadRow, Document
from presence_ds.data.sources.config import SourceConfig
from presence_ds.data.sources.finding import SourceFile
from presence_ds.errors import DataError

MAX_EXAMPLES = 5  # bad rows kept word for word; the others are only counted
EARLY_STOP_ROWS = 1000  # stop reading when not one of this many first rows can be used


@dataclass
class Skipped:
    """What of a source could not be used.

    Args:
        rows: Number of rows.
        examples: The first few of these, each as "file line: reason".
        files: Files of which the end, or all, was left out, each as "file: reason, and how many rows it gave".
        side_files: Files beside the data, such as README.md, which a folder does not stand for.
    """

    rows: int = 0
    examples: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    side_files: list[str] = field(default_factory=list)


@dataclass
class Tally:
    """Rows of one source that this process has read, and those of them that could not be used.

    Args:
        source: whose.
        files: its files.
        max_bad_share: share of the rows, between 0 and 1, that may be bad.
        skipped: takes the bad ones.
        rows: all of them.
    """

    source: SourceConfig
    files: list[SourceFile]
    max_bad_share: float
    skipped: Skipped = field(default_factory=Skipped)
    rows: int = 0

    def count(self, row: Document | BadRow) -> None:
        """Count a row; raise `DataError` where none of the first `EARLY_STOP_ROWS` can be used."""
        self.rows += 1
        if isinstance(row, BadRow):
            self.skipped.rows += 1
            if len(self.skipped.examples) < MAX_EXAMPLES:
                self.skipped.examples.append(f"{row.location}: {row.reason}")
            if self.skipped.rows == self.rows == EARLY_STOP_ROWS:
                self.check()

    def check(self) -> None:
        """Raise `DataError` if of the rows so far too many cannot be used, or all, or if there was none."""
        skipped, source = self.skipped, f'source "{self.source.name}"'
        if skipped.rows < self.rows and skipped.rows <= self.max_bad_share * self.rows:
            return
        if self.rows == 0 and skipped.files:
            raise DataError(f"{source}: none of its files can be read; the first is {skipped.files[0]}")
        if self.rows == 0:
            place = str(self.files[0].path) if len(self.files) == 1 else f"its {len(self.files)} files"
            raise DataError(f"{source} is empty: there is no document in {place}")
        first = f"the first is {skipped.examples[0]}"
        if skipped.rows == self.rows:
            raise DataError(f"{source}: none of the first {self.rows} rows can be used; {first}")
        raise DataError(
            f"{source}: {skipped.rows} of {self.rows} rows cannot be used, more than max_bad_share "
            f"{self.max_bad_share:g} allows; {first}"
        )
