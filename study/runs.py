"""Cells → rows: every one a `presence train` in a process of its own, some at a time, each on one core.

What has ended is not run again. A row is written when its run has ended, at once and as a whole, so that a study can be
killed at any time, shared among machines that see one folder, and gone on with.
"""

import json
import os
import queue
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from pathlib import Path

import yaml

from study.corpora import Corpora
from study.plan import Cell, Plan
from study.ranks import run_rank
from study.recipes import key, recipe, trained
from study.rows import Row, make_row

Report = Callable[[str], None]


class Runs:
    """The runs of a plan below ``work``.

    Attributes:
        rows: folder of a JSON file for every row.
    """

    def __init__(self, plan: Plan, work: Path, texts: Path, known: Collection[str] = ()) -> None:
        """``known`` are keys of runs that have been made elsewhere, and are not to be made again."""
        self._plan, self._work, self._known = plan, work, known
        self._corpora = Corpora(plan, work / "corpora", texts)
        self.rows = work / "rows"
        self.rows.mkdir(parents=True, exist_ok=True)

    def key(self, cell: Cell) -> str:
        """What the row of ``cell`` is known by: its recipe, its corpus and the protocol, not where they lie.

        And its text, which says what the run is compared with: the clean part of two texts may be the same.
        """
        return key(self._plan.protocol, cell.text, trained(recipe(self._plan, cell, Path())), self._corpora.key(cell))

    def missing(self, cells: Sequence[Cell]) -> list[Cell]:
        """Those of ``cells`` that have no row yet, in their order."""
        return [cell for cell in cells if self.key(cell) not in self._known and not self._row_file(cell).exists()]

    def run(self, cells: Sequence[Cell], workers: int, report: Report = print) -> None:
        """Run what is missing of ``cells``, ``workers`` at a time."""
        waiting: queue.SimpleQueue[Cell] = queue.SimpleQueue()
        for cell in self.missing(cells):
            waiting.put(cell)
        cores = sorted(os.sched_getaffinity(0))
        faults: list[BaseException] = []

        def work(core: int) -> None:
            while not faults:
                try:
                    cell = waiting.get_nowait()
                except queue.Empty:
                    return
                try:
                    started = time.monotonic()
                    row = self._run_one(cell, core)
                    left = waiting.qsize()
                    report(f"{row.state} in {time.monotonic() - started:.0f} s, {left} left: {cell}")
                except BaseException as fault:
                    faults.append(fault)

        threads = [threading.Thread(target=work, args=(cores[index % len(cores)],)) for index in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if faults:
            raise faults[0]

    def _row_file(self, cell: Cell) -> Path:
        return self.rows / f"{self.key(cell)}.json"

    def _run_one(self, cell: Cell, core: int) -> Row:
        run_dir = self._work / "runs" / self.key(cell)
        run_dir.parent.mkdir(parents=True, exist_ok=True)
        status = 0
        if not (run_dir / "summary.json").exists():  # else the run had ended when the study was killed
            self._corpora.prepare(cell, core)
            file = run_dir.with_suffix(".yaml")
            fields = recipe(self._plan, cell, self._corpora.path(cell)) | {"run_dir": str(run_dir)}
            file.write_text(yaml.safe_dump(fields, sort_keys=False), encoding="utf-8")
            with open(run_dir.with_suffix(".log"), "wb") as log:
                status = run_rank(["train", file], core, log.fileno())
        row = make_row(self.key(cell), self._plan, cell, run_dir, status)
        target = self._row_file(cell)
        part = target.with_suffix(".part")
        part.write_text(json.dumps(asdict(row)), encoding="utf-8")
        part.replace(target)
        return row
