"""What reading a source yields: usable documents, and rows that cannot be used."""

from dataclasses import dataclass

from presence_ds.errors import DataError


@dataclass(frozen=True)
class Document:
    """One text, and an id that is unique within its source."""

    id: str
    text: str


@dataclass(frozen=True)
class BadRow:
    """A row without usable text: where it stands (``file line 3``) and what is wrong with it."""

    location: str
    reason: str


class UnreadableFile(DataError):
    """A file that cannot be read, or not to its end; what it gave before the fault is good."""


@dataclass(frozen=True)
class Fields:
    """Where in a row its document is.

    Attributes:
        text: name of the text's field or column.
        id: name of the id's; None: the place of the row is the id.
        max_bytes: of the text in UTF-8; a row with more is a bad one.
    """

    text: str = "text"
    id: str | None = None
    max_bytes: int = 64_000_000

    @property
    def names(self) -> list[str]:
        return [self.text] if self.id is None else [self.text, self.id]

    def document(self, row: object, place: str, location: str) -> Document | BadRow:
        """The document of a row.

        Args:
            row: what was found there; a dict of fields if it can be used.
            place: the id where the row states none.
            location: for messages.
        """
        if not isinstance(row, dict):
            return BadRow(location, f"not a JSON object but a {type(row).__name__}")
        text = row.get(self.text)
        if problem := text_problem(text, f'field "{self.text}"'):
            return BadRow(location, problem)
        assert isinstance(text, str)
        # UTF-8 has at most four bytes per character.
        if 4 * len(text) > self.max_bytes and len(text.encode()) > self.max_bytes:
            return BadRow(location, too_long(self.max_bytes))
        if self.id is None:
            return Document(place, text)
        document_id = row.get(self.id)
        if isinstance(document_id, int) and not isinstance(document_id, bool):
            document_id = str(document_id)
        if problem := text_problem(document_id, f'field "{self.id}"'):
            return BadRow(location, problem)
        assert isinstance(document_id, str)
        return Document(document_id, text)


def text_problem(text: object, field: str) -> str | None:
    """Why ``text``, found under ``field``, cannot be a document; None if it can."""
    if text is None:
        return f"{field} is missing or null"
    if not isinstance(text, str):
        return f"{field} is of type {type(text).__name__}, not a string"
    if not text or text.isspace():
        return f"{field} is empty"
    try:
        text.encode()
    except UnicodeEncodeError:
        return f"{field} holds a lone surrogate, which is no character"
    return None


def too_long(max_bytes: int) -> str:
    """What is wrong with a text of more bytes."""
    return f"longer than max_document_megabytes {max_bytes / 1e6:g}"
