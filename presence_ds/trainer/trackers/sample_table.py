"""The samples of a step with the highest and the lowest weights, with their text.

Their text is what the model was given, so that it takes no corpus, and there is some of streamed text too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from presence_ds.printable import printable
from presence_ds.reweighting import Samples
from presence_ds.reweighting.update_share import update_terms
from presence_ds.trainer.callbacks.metrics_file import json_value
from presence_ds.trainer.callbacks.score_records import origins

if TYPE_CHECKING:
    from presence_ds.engine.presence import Presence
    from presence_ds.trainer.trainer import Batch, Trainer

ROWS = 8  # of the highest, and as many of the lowest
CHARACTERS = 500  # of a sample's text


class Seen(NamedTuple):
    """A micro-batch as it was trained on."""

    batch: Batch
    losses: Tensor
    has_targets: Tensor
    scores: Tensor | None


class SampleTable:
    """On every rank: what it has of the samples that all ranks agree on."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase | None) -> None:
        """``tokenizer`` is None where text is private."""
        self._tokenizer = tokenizer
        self._seen: list[Seen] = []

    def keep(self, trainer: Trainer, batch: Batch) -> None:
        """Take a micro-batch of a step that a table may be made of."""
        presence = trainer.engine.presence
        assert presence.losses is not None
        assert presence.has_targets is not None
        self._seen.append(Seen(batch, presence.losses, presence.has_targets, presence.scores))

    def forget(self) -> None:
        """The step is over."""
        self._seen = []

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
        everyone, weights, local = presence.step_samples, presence.step_weights, presence.weights
        if everyone is None or weights is None or local is None or not everyone.counted.any() or not self._seen:
            return []
        weights, number = weights[everyone.counted], rows_of_an_end(everyone)
        highest, lowest = (weights.topk(number, largest=which).values[-1].float() for which in (True, False))
        figures = self._figures(presence, everyone.only_counted(), weights)
        counted = figures.pop("counted")
        places = {
            "highest": (local >= highest) & counted,  # more than there will be where weights are alike
            "lowest": (local <= lowest) & counted,
        }
        of_batches = [origins(seen.batch, presence.by_document) for seen in self._seen]
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
                    row["text"] = self._text(self._seen[at].batch, int(positions[inner]), inner, presence.by_document)
                rows.append(row)
        return rows

    def _figures(self, presence: Presence, kept: Samples, weights: Tensor) -> dict[str, Any]:
        """Of this rank's samples, [n] each or None; ``kept`` and their ``weights`` are all that count in the step."""
        losses = torch.cat([seen.losses for seen in self._seen]).float().cpu()
        has_targets = torch.cat([seen.has_targets for seen in self._seen]).cpu()
        parts = [seen.scores for seen in self._seen if seen.scores is not None]
        counted, scores, shares = losses.isfinite() & has_targets, None, None
        local = presence.weights
        assert local is not None
        if parts and kept.scores is not None:
            scores = torch.cat(parts).float().cpu()
            counted &= scores.isfinite()
            if presence.alignments is not None:  # as `presence_ds.trainer.gain.records` has it, of sketches
                counted &= ~((local == 0.0) & (presence.alignments == 0.0) & (scores > 0.0))
            total = update_terms(weights, kept.scores, kept.alignment).sum()
            shares = update_terms(local, scores, presence.alignments) / total if total > 0.0 else None
        return {
            "counted": counted,
            "weight": local / weights.mean(),
            "loss": losses,
            "self_influence": scores,
            "alignment": presence.alignments,
            "update_share": shares,
        }

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


def rows_of_an_end(samples: Samples) -> int:
    """How many rows there are of the highest weights, and of the lowest: no sample is among both, but one alone."""
    counted = int(samples.counted.sum())
    return min(ROWS, max(1, counted // 2))


def shown(text: str) -> str:
    """``text`` as any tracker may be given it: in one line, without control characters, and UTF-8."""
    return printable(text).encode("utf-8", "backslashreplace").decode()
