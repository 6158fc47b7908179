"""The samples of a step with the highest and the lowest weights, with their text.

Their text is what the model was given, so that it takes no corpus, and there is some of streamed text too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from presence_ds.printable import printable
from presence_ds.reweighting import Samples
from presence_ds.reweighting.update_share import update_terms
from presence_ds.trainer.callbacks.metrics_file import json_value
from presence_ds.trainer.callbacks.score_records import origins

if TYPE_CHECKING:
    from presence_ds.trainer.trainer import Batch, Trainer

ROWS = 8  # of the highest, and as many of the lowest
CHARACTERS = 500  # of a sample's text


class SampleTable:
    """On every rank: what it has of the samples that all ranks agree on."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase | None) -> None:
        """``tokenizer`` is None where text is private."""
        self._tokenizer = tokenizer
        self._batches: list[Batch] = []

    def keep(self, batch: Batch) -> None:
        """Take a micro-batch of a step that a table may be made of."""
        self._batches.append(batch)

    def forget(self) -> None:
        """The step is over."""
        self._batches = []

    def collect(self, trainer: Trainer) -> list[dict[str, Any]] | None:
        """The rows, the highest weight first, on rank 0; None on the others. Called on every rank."""
        parts = trainer.ranks.collect(self._own(trainer))
        if parts is None:
            return None
        rows = [row for part in parts for row in part]
        found = []
        samples = trainer.engine.presence.step_samples
        number = 0 if samples is None else rows_of_an_end(samples)
        for which, sign in (("highest", -1), ("lowest", 1)):
            of_these = [row for row in rows[::-sign] if row["which"] == which]  # of those alike, others at either end
            found += sorted(of_these, key=lambda row: sign * row["weight"])[:number]
        return sorted(found, key=lambda row: -row["weight"])

    def _own(self, trainer: Trainer) -> list[dict[str, Any]]:
        """Those of this rank that may be among the step's."""
        presence = trainer.engine.presence
        everyone, own = presence.step_samples, presence.own_samples
        weights, local = presence.step_weights, presence.weights
        if everyone is None or own is None or weights is None or local is None or not everyone.counted.any():
            return []
        weights, number = weights[everyone.counted], rows_of_an_end(everyone)
        highest, lowest = (weights.topk(number, largest=which).values[-1].float() for which in (True, False))
        figures = _figures(own, local, everyone.only_counted(), weights)
        places = {
            "highest": (local >= highest) & own.counted,  # more than there will be where weights are alike
            "lowest": (local <= lowest) & own.counted,
        }
        of_batches = [origins(batch, presence.by_document) for batch in self._batches]
        starts = torch.tensor([0, *(len(origin[0]) for origin in of_batches)]).cumsum(0)
        rows = []
        for which, chosen in places.items():
            order = local[chosen].argsort(descending=True, stable=True)
            order = order[:number] if which == "highest" else order[-number:]
            for place in chosen.nonzero().flatten()[order].tolist():
                at = int(torch.searchsorted(starts, place, right=True)) - 1
                inner = place - int(starts[at])
                positions, sources, documents, offsets = of_batches[at]
                row: dict[str, Any] = {"step": trainer.step, "which": which}
                row |= {name: None if of is None else json_value(of[place].item()) for name, of in figures.items()}
                row["source"] = shown(trainer.source_names[int(sources[inner])])
                row |= {"document": shown(documents[inner]), "offset": int(offsets[inner])}
                if self._tokenizer is not None:
                    row["text"] = self._text(self._batches[at], int(positions[inner]), inner, presence.by_document)
                rows.append(row)
        return rows

    def _text(self, batch: Batch, row: int, place: int, by_document: bool) -> str:
        """The beginning of a sample, or of one of the documents of a row, in one line."""
        assert self._tokenizer is not None
        ids = batch["input_ids"][row]
        if by_document:
            before = sum(len(pieces) for pieces in batch["pieces"][:row])
            lengths = [length for _, _, length in batch["pieces"][row]]
            start = sum(lengths[: place - before])
            ids = ids[start : start + lengths[place - before]]
        elif "attention_mask" in batch:
            ids = ids[batch["attention_mask"][row].bool()]
        text = self._tokenizer.decode(ids[:CHARACTERS].tolist(), skip_special_tokens=False)
        return shown(text[:CHARACTERS])


def _figures(own: Samples, local: Tensor, kept: Samples, weights: Tensor) -> dict[str, Tensor | None]:
    """Of this rank's samples, [n] each: ``own`` with their weights ``local``.

    ``kept`` and their ``weights`` are all that count in the step.
    """
    shares = None
    if own.scores is not None and kept.scores is not None:
        total = update_terms(weights, kept.scores, kept.alignment).sum()
        shares = update_terms(local, own.scores, own.alignment) / total if total > 0.0 else None
    return {
        "weight": local / weights.mean(),
        "loss": own.losses,
        "self_influence": own.scores,
        "alignment": own.alignment,
        "update_share": shares,
    }


def rows_of_an_end(samples: Samples) -> int:
    """How many rows there are of the highest weights, and of the lowest: no sample is among both, but one alone."""
    counted = int(samples.counted.sum())
    return min(ROWS, max(1, counted // 2))


def shown(text: str) -> str:
    """``text`` as any tracker may be given it: in one line, without control characters, and UTF-8."""
    return printable(text).encode("utf-8", "backslashreplace").decode()
