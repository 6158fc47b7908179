"""The files of one shard, by one model after another."""

import gc
import shutil
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from presence_ds.data import Corpus
from presence_ds.engine.inference import Inference, scoring_config
from presence_ds.printable import printable
from presence_ds.trainer.building.document_mask import check_document_mask
from presence_ds.trainer.ranks.process_group import Ranks
from presence_ds.trainer.ranks.stop_signals import StopSignals
from presence_ds.trainer.recipe.plan import Plan
from presence_ds.trainer.recipe.recipe import Recipe
from presence_ds.trainer.scores.layout import schema_of
from presence_ds.trainer.scoring.folder import ScoresFolder, stretches, write_table
from presence_ds.trainer.scoring.model_scores import Columns, ModelScores
from presence_ds.trainer.scoring.models import ScoringModel
from presence_ds.trainer.scoring.request import Request


class Shard:
    """All that is open while a shard is scored."""

    def __init__(
        self,
        ranks: Ranks,
        signals: StopSignals,
        recipe: Recipe,
        plan: Plan,
        request: Request,
        folder: ScoresFolder,
        manifest: dict[str, Any],
        models: list[ScoringModel],
        corpus: Corpus,
        console: Console,
    ) -> None:
        self._ranks, self._signals, self._recipe, self._plan = ranks, signals, recipe, plan
        self._folder, self._manifest, self._models = folder, manifest, models
        self._corpus, self._console = corpus, console
        self._all = stretches(len(corpus.train), request.rows_per_file)
        self._own = self._all[request.shard[0] :: request.shard[1]]

    def run(self) -> None:
        """Every file of the shard that is not there, by one model after another."""
        for number, model in enumerate(self._models):
            last = number == len(self._models) - 1
            left = self._ranks.on_main(partial(self._left, model.name))
            if left:
                self._score(model, left, last=last)
        names = [model.name for model in self._models]
        whole = self._ranks.on_main(partial(self._finish, names))
        found = "complete" if whole == len(self._all) else f"{whole:,} of {len(self._all):,} files"
        path = printable(str(self._folder.path))
        self._console.print(f"scores: {path}, {found}", highlight=False, soft_wrap=True, markup=False)

    def _left(self, name: str) -> list[range]:
        """What the checkpoint ``name`` still has to tell of stretches of the shard that have no file."""
        open_ = [rows for rows in self._own if not self._folder.file(rows).is_file()]
        told = self._folder.told(name, open_)
        left = [
            range(parts[-1].stop if parts else rows.start, rows.stop) for rows, parts in zip(open_, told, strict=True)
        ]
        return [rows for rows in left if rows]

    def _score(self, model: ScoringModel, left: list[range], *, last: bool) -> None:
        gc.collect()  # the model before, of which hooks are in cycles
        with self._ranks.agreement():
            built = model.build(self._plan.model_config, self._recipe)
        config = scoring_config(self._recipe.presence)
        size = self._recipe.training.micro_batch_size
        inference = Inference(built, config, self._plan.deepspeed, micro_batch_size=size)
        if self._recipe.data.document_mask:
            check_document_mask(inference)
        self._ranks.on_main(partial(self._folder.claim, self._manifest))  # what is wrong with the model has been said
        scores = ModelScores(
            model.name, inference, self._corpus, self._recipe, self._ranks, self._signals, self._console
        )
        if self._recipe.reference.sources:
            scores.find_reference(self._folder.reference(model.name))
        for rows, columns in scores(left):
            with self._ranks.agreement():
                if columns is not None:
                    self._write(model, rows, columns, last=last)
        inference.close()

    def _write(self, model: ScoringModel, rows: range, columns: Columns, *, last: bool) -> None:
        """What one model has found of ``rows``; with the last one's last rows of a file, the file, of all models."""
        stretch = next(stretch for stretch in self._own if rows.start in stretch)
        if self._folder.file(stretch).is_file():  # of another process, which has removed the parts
            return
        if not last or rows.stop < stretch.stop:
            write_table(pa.table(columns), self._folder.part(model.name, rows))
            return
        names = [model.name for model in self._models]
        before = range(stretch.start, rows.start)  # of this model; others have told of all of the stretch
        told = {name: self._folder.read(name, before if name == model.name else stretch) for name in names}
        by_model = {
            name: [{key: part[key].to_numpy() for key in columns} for part in parts] for name, parts in told.items()
        }
        by_model[model.name].append(columns)
        whole = {
            name: {key: np.concatenate([part[key] for part in parts]) for key in columns}
            for name, parts in by_model.items()
        }
        write_table(self._table(stretch, whole), self._folder.file(stretch))
        self._folder.clear_parts([stretch], names)

    def _table(self, rows: range, by_model: dict[str, Columns]) -> pa.Table:
        """A file's content; the last of ``by_model`` is the last model."""
        by_document = self._recipe.presence.granularity == "document"
        schema = schema_of(list(by_model), by_document=by_document)
        last = list(by_model.values())[-1]
        numbers = last["row"] - rows.start

        def total(name: str) -> Any:
            if name not in last:
                return pa.nulls(len(numbers), pa.float32())
            return np.sum([found[name] for found in by_model.values()], axis=0, dtype=np.float64).astype(np.float32)

        stored = self._corpus.train.rows.with_format("arrow")[rows.start : rows.stop]
        names = pa.array(self._corpus.source_names, type=pa.string())
        sources = stored["source_id"].combine_chunks().cast(pa.int16()).take(pa.array(numbers))
        texts = pc.list_flatten(stored["pieces"]).combine_chunks() if by_document else None
        columns: dict[str, Any] = {
            "row": last["row"],
            "source": pa.DictionaryArray.from_arrays(sources, names),
            "document_id": stored["document_id"] if texts is None else texts.field("document_id"),
            "offset": stored["offset"] if texts is None else texts.field("offset"),
            "loss": last["loss"],
            "targets": last["targets"],
            "self_influence": total("self_influence"),
            "reference_alignment": total("reference_alignment"),
            "has_targets": last["targets"] > 0,
        }
        if by_document:
            columns["piece"] = (np.arange(len(numbers)) - np.searchsorted(numbers, numbers)).astype(np.int32)
        for name, found in by_model.items():
            columns[f"loss_{name}"] = found["loss"]
            columns[f"self_influence_{name}"] = found.get("self_influence", pa.nulls(len(numbers), pa.float32()))
        return pa.table([columns[field.name] for field in schema], schema=schema)

    def _finish(self, names: list[str]) -> int:
        """Remove what a killed process left beside whole files; the number of those, of all shards."""
        whole = [rows for rows in self._all if self._folder.file(rows).is_file()]
        self._folder.clear_parts(whole, names)
        if len(whole) == len(self._all):
            shutil.rmtree(self._folder.parts, ignore_errors=True)
        return len(whole)
