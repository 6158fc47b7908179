"""A document out of the fields of a row."""

from presence_ds.data.readers.lines import too_long
from presence_ds.data.rows import BadRow, Document, text_problem


def from_fields(
    row: object, default_id: str, location: str, text_field: str, id_field: str | None, max_bytes: int
) -> Document | BadRow:
    if not isinstance(row, dict):
        return BadRow(location, f"not a JSON object but a {type(row).__name__}")
    text = row.get(text_field)
    if problem := text_problem(text, f'field "{text_field}"'):
        return BadRow(location, problem)
    assert isinstance(text, str)
    if 4 * len(text) > max_bytes and len(text.encode()) > max_bytes:  # UTF-8 has at most four bytes per character
        return BadRow(location, too_long(max_bytes))
    if id_field is None:
        return Document(default_id, text)
    document_id = row.get(id_field)
    if isinstance(document_id, int) and not isinstance(document_id, bool):
        document_id = str(document_id)
    if problem := text_problem(document_id, f'field "{id_field}"'):
        return BadRow(location, problem)
    assert isinstance(document_id, str)
    return Document(document_id, text)
