"""Loss, perplexity and bits per byte of every validation source, every N steps and at the end."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch

from presence_ds.data import Corpus, build_evaluation_loader
from presence_ds.data.tokenizer.token_bytes import token_bytes
from presence_ds.engine.batch import is_encoder_decoder, logits_of, without_cache
from presence_ds.errors import DataError
from presence_ds.influence import SampleLoss
from presence_ds.influence.loss import IGNORED
from presence_ds.trainer.batches import loader_options
from presence_ds.trainer.callbacks.callback import Callback
from presence_ds.trainer.callbacks.evaluation_config import EvaluationConfig
from presence_ds.trainer.ranks.process_group import Ranks
from presence_ds.trainer.recipe.recipe import Recipe

if TYPE_CHECKING:
    from presence_ds.trainer.trainer import Batch, Metrics, Trainer


class Evaluation(Callback):
    """Adds figures of the validation split, over all ranks, to the metrics of the steps it runs at.

    ``validation/loss`` (nats per target token), ``validation/perplexity`` (its exponential) and
    ``validation/bits_per_byte`` (of the targets' text as UTF-8; None without ``token_bytes``); the same of every source
    as ``validation/NAME/loss`` and so on. A source of which ``max_batches`` leaves nothing has none.
    """

    def __init__(self, config: EvaluationConfig, loader: Iterable[Batch], token_bytes: torch.Tensor | None) -> None:
        """``token_bytes`` [vocabulary] int64 is the size of every token's text; None: not known, or no text."""
        self._config = config
        self._loader = loader
        self._token_bytes = token_bytes
        self.last: dict[str, float | None] = {}  # the figures of the last evaluation

    def state_dict(self) -> dict[str, Any]:
        return {"last": self.last}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.last = state["last"]

    def on_step(self, trainer: Trainer, metrics: Metrics) -> None:
        every = self._config.every_steps
        if trainer.is_last_step or (every is not None and trainer.step % every == 0):
            self.last = self._evaluate(trainer)
            metrics.update(self.last)

    @torch.no_grad()
    def _evaluate(self, trainer: Trainer) -> dict[str, float | None]:
        engine, names = trainer.engine, trainer.source_names
        shifted = is_encoder_decoder(engine.module)
        loss = SampleLoss("sum", shifted=shifted, kernels=engine.presence.config.kernels)
        options = without_cache(engine.module)
        engine.eval()
        sums = torch.zeros(3, len(names), dtype=torch.float64)  # loss, targets and bytes of every source
        for batch in islice(self._loader, self._config.max_batches):
            trainer.watch.progress(trainer.step)
            inputs = trainer.model_inputs(batch)
            losses = loss(logits_of(engine(**inputs, **options)), inputs["labels"])
            targets = batch["labels"][:, 0 if shifted else 1 :].cpu()
            kept = targets != IGNORED
            sizes = torch.zeros_like(targets)
            if self._token_bytes is not None:
                sizes = self._token_bytes[targets.where(kept, 0)] * kept
            figures = torch.stack([losses.double().cpu(), kept.sum(1).double(), sizes.sum(1).double()])
            sums.index_add_(1, batch["source_ids"].cpu(), figures)
        engine.train()
        total = torch.tensor(trainer.ranks.sum(sums.flatten().tolist(), engine.device), dtype=torch.float64).view(3, -1)
        found = figures_of("validation", *total.sum(1).tolist())
        for name, column in zip(names, total.T.tolist(), strict=True):
            found |= figures_of(f"validation/{name}", *column)
        return found


def make_evaluation(recipe: Recipe, corpus: Corpus, ranks: Ranks) -> Evaluation:
    """Of the validation split of ``corpus``, every sample of which one of the ranks sees once."""
    sizes = None
    if recipe.data.objective.is_causal:
        try:
            sizes = token_bytes(corpus.tokenizer)
        except DataError as error:
            ranks.warn(f"there are no bits per byte: {error}")
    loader = build_evaluation_loader(corpus.validation, **loader_options(recipe, ranks))
    return Evaluation(recipe.evaluation, loader, sizes)


def figures_of(prefix: str, loss: float, targets: float, text_bytes: float) -> dict[str, float | None]:
    """The figures of ``targets`` tokens whose losses add up to ``loss`` nats and whose text has ``text_bytes`` bytes.

    Empty without targets; bits per byte are None without text, infinite perplexities are left infinite.
    """
    if targets == 0:
        return {}
    mean = loss / targets
    return {
        f"{prefix}/loss": mean,
        f"{prefix}/perplexity": math.exp(mean) if mean < 700.0 else math.inf,  # a float64 ends there
        f"{prefix}/bits_per_byte": loss / math.log(2) / text_bytes if text_bytes else None,
    }
