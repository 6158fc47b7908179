"""Prepared corpora, one for every mixture, which all runs on it read."""

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from presence_ds.errors import ConfigError, DataError
from study.plan import Cell, Plan
from study.recipes import data_section, has_noise, key

CLEAN = "oracle"  # an arm whose runs read no noise


class Corpora:
    """Below ``folder``, of the files below ``texts``."""

    def __init__(self, plan: Plan, folder: Path, texts: Path) -> None:
        self._plan, self._folder, self._texts = plan, folder, texts
        self._checksums: dict[Path, str] = {}

    def key(self, cell: Cell) -> str:
        """Of the corpus of ``cell``: how it is made, and what is in the files it is made of."""
        section = data_section(self._plan, cell, Path())
        files = [(str(file.relative_to(self._texts)), self._checksum(file)) for file in self._files(cell)]
        return key(self._plan.protocol, section, files)

    def path(self, cell: Cell) -> Path:
        """Where the corpus of ``cell`` is."""
        return self._folder / self.key(cell)

    def prepare(self, cell: Cell) -> None:
        """Make it, unless it is there."""
        target, section = self.path(cell), data_section(self._plan, cell, self._texts)
        if target.exists():
            return
        if has_noise(cell):  # losses compare where tokens are the same, so that the clean text alone decides on them
            clean = replace(cell, arm=CLEAN)
            self.prepare(clean)
            section["tokenizer"] = {"path": str(self.path(clean) / "tokenizer")}
        self._folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=self._folder) as folder:  # another machine may be making the same one
            file, part = Path(folder) / "recipe.yaml", Path(folder) / "corpus"
            file.write_text(yaml.safe_dump({"data": section}), encoding="utf-8")
            command: list[Any] = [sys.executable, "-m", "presence_ds", "prepare", file, part]
            if subprocess.run(command, stdout=sys.stderr).returncode:
                raise DataError(f"text {cell.text} cannot be prepared: above is why")
            try:
                part.rename(target)
            except OSError:
                if not target.exists():
                    raise

    def _files(self, cell: Cell) -> list[Path]:
        found: list[Path] = []
        for source in data_section(self._plan, cell, Path())["sources"]:
            files = sorted(self._texts.glob(source["path"]))
            if not files:
                raise ConfigError(
                    f"{self._texts / source['path']}: there is no such file, and text {cell.text} is made of it: give "
                    f"the folder that has the texts of study/texts.py"
                )
            found += files
        return found

    def _checksum(self, file: Path) -> str:
        if file not in self._checksums:
            self._checksums[file] = hashlib.sha256(file.read_bytes()).hexdigest()
        return self._checksums[file]
