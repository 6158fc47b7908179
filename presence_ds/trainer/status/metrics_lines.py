"""Lines of a metrics.jsonl of any size, read at a few places alone."""

import json
import os
from math import isfinite
from pathlib import Path
from typing import Any, BinaryIO

BLOCK = 1 << 20  # bytes read at once from the end
FARTHEST = 1 << 26  # from the end, where a line is looked for


def last_line(path: Path, having: str = "step") -> dict[str, Any] | None:
    """The last whole line of ``path`` with a value under ``having``.

    None if there is none in the last `FARTHEST` bytes, or no file. A line that is being written, or that a crash cut
    short, is passed over.
    """
    try:
        with open(path, "rb") as file:
            return _last_line(file, having)
    except OSError:
        return None


def _last_line(file: BinaryIO, having: str) -> dict[str, Any] | None:
    start = file.seek(0, os.SEEK_END)
    least, rest, key = max(0, start - FARTHEST), b"", json.dumps(having).encode()
    while start > least:
        start, end = max(least, start - BLOCK), start
        file.seek(start)
        lines = (file.read(end - start) + rest).split(b"\n")
        rest = lines.pop(0) if start else b""
        for line in reversed(lines):
            if key in line and (found := _parse(line)) is not None and having in found:
                return found
    return None


def spread_lines(path: Path, number: int) -> list[dict[str, Any]]:
    """At most ``number`` lines, at even distances in bytes, by their steps; the last whole line among them."""
    found: dict[float, dict[str, Any]] = {}
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            for place in range(number - 1):
                file.seek(size * place // (number - 1))
                if place:
                    file.readline()  # the rest of a line
                if (line := _parse(file.readline())) is not None:
                    found[line["step"]] = line
            if (last := _last_line(file, "step")) is not None:
                found[last["step"]] = last
    except OSError:
        return []
    return [found[step] for step in sorted(found)]


def _parse(line: bytes) -> dict[str, Any] | None:
    """The figures of a line, without those that were not finite, or are no numbers; stages have names."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    if not isinstance(found, dict) or not isinstance(found.get("step"), int):
        return None
    kept = {name: value for name, value in found.items() if isinstance(value, (int, float)) and isfinite(value)}
    return {"stage": str(found.get("stage")), **kept}
