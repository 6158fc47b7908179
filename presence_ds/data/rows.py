"""What reading a source yields: usable documents and rows that cannot be used."""

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
