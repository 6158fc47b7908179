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
    as ``validation/NAME/loss`` and so on. A source of which ``max_batches`` leaves nothing has none. With
    ``by_frequency`` those of `tenths` as ``validation/tenth_1`` to ``validation/tenth_10``.
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
        by_token = torch.zeros(2, 0, dtype=torch.float64)  # loss and targets of every token
        for batch in islice(self._loader, self._config.max_batches):
            trainer.watch.progress(trainer.step)
            inputs = trainer.model_inputs(batch)
            logits = logits_of(engine(**inputs, **options))
            losses = loss.by_position(logits, inputs["labels"])[:, : None if shifted else -1].double().cpu()
            targets = batch["labels"][:, 0 if shifted else 1 :].cpu()
            kept = targets != IGNORED
            sizes = torch.zeros_like(targets)
            if self._token_bytes is not None:
                sizes = self._token_bytes[targets.where(kept, 0)] * kept
            figures = torch.stack([losses.sum(1), kept.sum(1).double(), sizes.sum(1).double()])
            sums.index_add_(1, batch["source_ids"].cpu(), figures)
            if self._config.by_frequency:
                if not by_token.numel():
                    by_token = torch.zeros(2, logits.shape[-1], dtype=torch.float64)
                by_token.index_add_(1, targets[kept], torch.stack([losses[kept], torch.ones_like(losses[kept])]))
        engine.train()
        totals = trainer.ranks.sum([*sums.flatten().tolist(), *by_token.flatten().tolist()], engine.device)
        total = torch.tensor(totals[: sums.numel()], dtype=torch.float64).view(3, -1)
        found = figures_of("validation", *total.sum(1).tolist())
        by_token = torch.tensor(totals[sums.numel() :], dtype=torch.float64).view(2, -1)
        found |= {f"validation/tenth_{number}": mean for number, mean in tenths(*by_token).items()}
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


def tenths(losses: torch.Tensor, counts: torch.Tensor) -> dict[int, float]:
    """Mean loss of each tenth of the targets, 1 being those with the most frequent tokens; nothing of one without any.

    Args:
        losses: [V] float64, sum over the targets that are the token.
        counts: [V] float64, number of these. The middle one says which tenth they all are in.
    """
    order = counts.argsort(descending=True, stable=True)
    order = order[counts[order] > 0]
    middles = counts[order].cumsum(0) - counts[order] / 2
    number = (10 * middles / counts.sum()).long()
    sums = torch.zeros(2, 10, dtype=torch.float64).index_add_(1, number, torch.stack([losses[order], counts[order]]))
    return {place + 1: loss / count for place, (loss, count) in enumerate(sums.T.tolist()) if count}
