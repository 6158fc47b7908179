"""Text that a terminal may be given."""

import pytest

from presence_ds.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain – 漢字 é", "plain – 漢字 é"),
        ("a\tb\nc\rd", r"a\tb\nc\rd"),
        ("\x1b[31m\x07\x7f\x9b", r"\x1b[31m\x07\x7f\x9b"),
        ("a\u2028b\u202ec\ufeff", r"a\u2028b\u202ec\ufeff"),
        ("\U000e0001", r"\U000e0001"),
        ("\ud800", r"\ud800"),
        (b"\xff".decode(errors="surrogateescape"), "\udcff"),
    ],
)
def test_what_is_shown(text: str, shown: str) -> None:
    assert printable(text) == shown
