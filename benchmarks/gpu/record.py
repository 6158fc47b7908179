"""The rows of a run, in a folder: JSON lines, each of them written the moment it is known."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

Row = dict[str, Any]


class Record:
    """``rows.jsonl`` of a folder; processes of a run may add to it in turn.

    A row has ``part``, ``row`` (its name), ``setting`` (plain values), and either ``found`` (plain values) or
    ``error`` (text).
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._file = folder / "rows.jsonl"
        self._before = len(self._lines())

    def add(self, part: str, name: str, setting: Any, **result: Any) -> None:
        """Write a row; ``result`` is ``found`` or ``error``."""
        with self._file.open("a+", encoding="utf-8") as file:
            if file.tell() and not self._file.read_bytes().endswith(b"\n"):
                file.write("\n")  # behind what a killed process began
            file.write(json.dumps({"part": part, "row": name, "setting": setting} | result) + "\n")

    def of(self, part: str) -> list[Row]:
        """The rows of a part, the newest of each name and setting, without errors of earlier runs."""
        newest: dict[str, Row] = {}
        for number, row in enumerate(self._lines()):
            if row["part"] == part and ("error" not in row or number >= self._before):
                newest[json.dumps([row["row"], row["setting"]])] = row
        return list(newest.values())

    def find(self, part: str, name: str, setting: Any) -> Row | None:
        """The row of that name and setting, if there is one."""
        return next((row for row in self.of(part) if row["row"] == name and row["setting"] == setting), None)

    def _lines(self) -> list[Row]:
        rows = []
        for line in self._file.read_text(encoding="utf-8").splitlines() if self._file.exists() else ():
            with suppress(json.JSONDecodeError):  # a line that a killed process began
                rows.append(json.loads(line))
        return rows
