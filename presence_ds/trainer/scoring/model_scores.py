"""One model's scores of stretches of rows, on every rank, and its reference gradient."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from presence_ds.data import Corpus
from presence_ds.engine.inference import Inference
from presence_ds.engine.reference import MeanGradient
from presence_ds.errors import Stopped
from presence_ds.trainer.batches import loading_processes
from presence_ds.trainer.building.document_mask import model_inputs
from presence_ds.trainer.ranks.process_group import Ranks
from presence_ds.trainer.ranks.stop_signals import StopSignals, describe, reason
from presence_ds.trainer.recipe.recipe import Recipe
from presence_ds.trainer.scoring.batches import RowBatches
from presence_ds.trainer.scoring.folder import create_once
from presence_ds.trainer.scoring.progress import ScoringProgress

# of consecutive rows, [records] each, in their order: row int64, loss float32, targets int32, and self_influence and
# reference_alignment float32 where they are scored. A record is of a row, or with granularity document of a piece.
Columns = dict[str, NDArray[Any]]

SAVE_SECONDS = 300.0  # of scoring that a kill may lose
NOTHING, SAVE = -1, 0  # what a rank asks for in a batch, beside the number of a signal


class ModelScores:
    """A model, and what it scores."""

    def __init__(
        self,
        name: str,
        inference: Inference,
        corpus: Corpus,
        recipe: Recipe,
        ranks: Ranks,
        signals: StopSignals,
        console: Console,
    ) -> None:
        """``inference`` has the model, of this ``name``; ``recipe`` says in what batches; ``signals`` stop it."""
        self._name = name
        self._inference = inference
        self._corpus = corpus
        self._recipe = recipe
        self._ranks = ranks
        self._signals = signals
        self._console = console
        self._reference: Tensor | None = None  # [m] float32

    def find_reference(self, path: Path) -> None:
        """Take the mean gradient of the reference from ``path``, or see all of its samples and write it there."""
        if not self._ranks.on_main(path.is_file):
            mean = MeanGradient(torch.distributed.group.WORLD)
            trusted = self._corpus.train.of_sources(
                [self._corpus.source_names.index(name) for name in self._recipe.reference.sources or []]
            )
            rows = range(len(trusted))
            batches = self._batches(trusted, [rows])
            with ScoringProgress(self._console, f"{self._name}, reference", len(rows)) as progress:
                for own, seen, batch in batches.of(rows):
                    asked = self._ask()
                    found = self._inference.score(self._inputs(batch))
                    assert found.sketches is not None
                    mean.add(found.sketches, (found.targets > 0) & bool(own))
                    _obey(asked(), "the reference gradient is begun anew")
                    progress.show(len(seen))
            found_mean = mean.mean()

            def write(temporary: Path) -> None:
                with open(temporary, "wb") as file:
                    np.save(file, found_mean.cpu().numpy(), allow_pickle=False)

            self._ranks.on_main(lambda: create_once(path, write))
        with self._ranks.agreement():  # of whoever was first, so that all shards compare with the same
            self._reference = torch.from_numpy(np.load(path, allow_pickle=False)).to(self._inference.device)

    def __call__(self, stretches: Sequence[range]) -> Iterator[tuple[range, Columns | None]]:
        """Every stretch, whole or in parts, and on rank 0 what its rows have.

        A part ends after `SAVE_SECONDS`, and where a signal has come: no more than a batch is lost by that.

        Raises:
            Stopped: on every rank, that a signal has come, when the part is taken.
        """
        batches = self._batches(self._corpus.train, stretches)
        scored = 0  # rows of the stretches before
        with ScoringProgress(self._console, self._name, sum(map(len, stretches))) as progress:
            for stretch in stretches:
                here: list[dict[str, Tensor]] = []
                first, since = stretch.start, time.monotonic()
                for own, seen, batch in batches.of(stretch):
                    due = self._ranks.is_main and time.monotonic() - since > SAVE_SECONDS
                    asked = self._ask(SAVE if due else NOTHING)
                    values = self._score(own, batch)
                    if own:
                        here.append(values)
                    answer = asked()
                    progress.show(scored + len(seen))
                    if answer != NOTHING or seen.stop == stretch.stop:
                        yield range(first, seen.stop), self._together(here)
                        here, first, since = [], seen.stop, time.monotonic()
                    _obey(answer, "what is scored stays")
                scored += len(stretch)

    def _score(self, own: range, batch: dict[str, Any]) -> dict[str, Tensor]:
        found = self._inference.score(self._inputs(batch))
        rows = torch.arange(found.rows) if found.documents is None else found.documents.rows
        values = {"row": rows + own.start, "loss": found.losses.float(), "targets": found.targets.int()}
        if found.scores is not None:
            values["self_influence"] = found.scores.float()
        if self._reference is not None:
            assert found.sketches is not None
            values["reference_alignment"] = found.sketches @ self._reference
        return values

    def _together(self, here: list[dict[str, Tensor]]) -> Columns | None:
        """What all ranks have of consecutive rows, on rank 0, in the order of the rows."""
        own = {name: torch.cat([part[name] for part in here]).cpu().numpy() for name in (here[0] if here else {})}
        parts = [part for part in self._ranks.collect(own) or [] if part]
        if not parts:
            return None
        order = np.argsort(np.concatenate([part["row"] for part in parts]), kind="stable")
        return {name: np.concatenate([part[name] for part in parts])[order] for name in parts[0]}

    def _inputs(self, batch: dict[str, Any]) -> dict[str, Any]:
        by_document = self._recipe.presence.granularity == "document"
        return model_inputs(self._inference.module, batch, self._inference.device, by_document=by_document)

    def _batches(self, dataset: Any, stretches: Sequence[range]) -> RowBatches:
        size = self._recipe.training.micro_batch_size
        workers = loading_processes(self._recipe.data, self._ranks.world_size)
        return RowBatches(dataset, stretches, size, self._ranks, workers)

    def _ask(self, otherwise: int = NOTHING) -> Callable[[], int]:
        """Begin to ask the ranks for a signal, while they score; what is returned waits for the answer."""
        return self._ranks.largest(self._signals.received or otherwise)


def _obey(answer: int, what: str) -> None:
    """Raise `Stopped` if ``answer`` is the number of a signal."""
    if answer > SAVE:
        raise Stopped(f"stopped by {describe(answer)}; {what}, and the same command goes on", reason(answer))
