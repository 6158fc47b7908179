"""Text from anywhere, as a terminal may be given it."""


def printable(text: str) -> str:
    """``text`` in one line, with what a terminal would obey or not show as an escape sequence of Python's.

    Bytes of names that are not UTF-8 (``surrogateescape``) stay as they are.
    """
    return "".join(one if one.isprintable() or "\udc80" <= one <= "\udcff" else _escaped(one) for one in text)


def _escaped(one: str) -> str:
    return one.encode("unicode_escape").decode()
