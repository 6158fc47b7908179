"""Prepared corpora, one for every mixture and filter, which all runs on it read."""

import hashlib
import subprocess
import sys
import threading
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from presence_ds.errors import ConfigError, DataError
from study.arms import ARMS, BASELINE, CLEAN
from study.filters import SCORING_RATE, SCORING_STEPS, keep
from study.plan import Cell, Plan
from study.recipes import data_section, has_noise, key, recipe, trained


class Corpora:
    """Below ``folder``, of the files below ``texts``."""

    def __init__(self, plan: Plan, folder: Path, texts: Path) -> None:
        self._plan, self._folder, self._texts = plan, folder, texts
        self._checksums: dict[Path, str] = {}
        self._locks: defaultdict[Path, threading.RLock] = defaultdict(threading.RLock)

    def key(self, cell: Cell) -> str:
        """Of the corpus of ``cell``: how it is made, and what is in the files it is made of."""
        arm = ARMS[cell.arm]
        if arm.keeps:
            return key(
                self._plan.protocol, self.key(self._whole(cell)), trained(self._scoring(cell, Path())), arm.keeps
            )
        section = data_section(self._plan, cell, Path())
        files = [(str(file.relative_to(self._texts)), self._checksum(file)) for file in self._files(cell)]
        return key(self._plan.protocol, section, files)

    def path(self, cell: Cell) -> Path:
        """Where the corpus of ``cell`` is."""
        return self._folder / self.key(cell)

    def prepare(self, cell: Cell, core: int) -> None:
        """Make it on ``core``, unless it is there; a thread that wants the one that another one makes waits for it."""
        target = self.path(cell)
        with self._locks[target]:
            if target.exists():
                return
            self._folder.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=self._folder) as folder:  # another machine may be making the same one
                work, part = Path(folder), Path(folder) / "corpus"
                if ARMS[cell.arm].keeps:
                    whole = self._whole(cell)
                    self.prepare(whole, core)
                    keep(ARMS[cell.arm].keeps, self._scoring(cell, self.path(whole)), work, part, core)
                else:
                    self._make(cell, work, part, core)
                try:
                    part.rename(target)
                except OSError:
                    if not target.exists():
                        raise

    def _make(self, cell: Cell, work: Path, target: Path, core: int) -> None:
        section = data_section(self._plan, cell, self._texts)
        if has_noise(cell):  # losses compare where tokens are the same, so that the clean text alone decides on them
            clean = replace(cell, arm=CLEAN)
            self.prepare(clean, core)
            section["tokenizer"] = {"path": str(self.path(clean) / "tokenizer")}
        file = work / "recipe.yaml"
        file.write_text(yaml.safe_dump({"data": section}), encoding="utf-8")
        command: list[Any] = [sys.executable, "-m", "presence_ds", "prepare", file, target]
        if subprocess.run(command, stdout=sys.stderr).returncode:
            raise DataError(f"text {cell.text} cannot be prepared: above is why")

    def _whole(self, cell: Cell) -> Cell:
        """Whose corpus a filter reads and whose model scores it, in the arm of ``cell``: one for all seeds."""
        return replace(cell, arm=BASELINE, rate=SCORING_RATE, seed=0, steps=SCORING_STEPS)

    def _scoring(self, cell: Cell, corpus: Path) -> dict[str, Any]:
        return recipe(self._plan, self._whole(cell), corpus)

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
