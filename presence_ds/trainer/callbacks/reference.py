"""Shows the engine micro-batches of the trusted sources, so that its reference gradient follows the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from presence_ds.data import BatchStream, Corpus, build_loader
from presence_ds.trainer.batches import loader_options
from presence_ds.trainer.callbacks.callback import Callback
from presence_ds.trainer.ranks.process_group import Ranks
from presence_ds.trainer.recipe.recipe import Recipe

if TYPE_CHECKING:
    from presence_ds.trainer.trainer import Trainer


class ReferenceStream(Callback):
    """Feeds the reference before the first step and every few steps after."""

    def __init__(self, every_steps: int, batches: BatchStream) -> None:
        self._every_steps = every_steps
        self._batches = batches
        self._observed = False

    def state_dict(self) -> dict[str, Any]:
        return {"batches": self._batches.state_dict(), "observed": self._observed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._batches.load_state_dict(state["batches"])
        self._observed = state.get("observed", True)

    def on_train_start(self, trainer: Trainer) -> None:
        if not self._observed:  # a resumed run has it in its checkpoint, unless the signal was another one
            self._observe(trainer)

    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.step % self._every_steps == 0 and not trainer.is_last_step:
            self._observe(trainer)

    def _observe(self, trainer: Trainer) -> None:
        batch = next(self._batches)
        trainer.engine.train()
        trainer.engine.observe_reference(**trainer.model_inputs(batch))
        self._observed = True


def make_reference(recipe: Recipe, corpus: Corpus, ranks: Ranks) -> ReferenceStream:
    """Of the trusted sources' samples."""
    trusted = corpus.train.of_sources([corpus.source_names.index(name) for name in recipe.reference.sources or []])
    stream = BatchStream(build_loader(trusted, **loader_options(recipe, ranks)))
    return ReferenceStream(recipe.reference.every_steps, stream)
