"""Samples of an optimizer step, and the rows in which ranks exchange them."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class MicroBatch:
    """One rank's micro-batch as it was scored, on the device.

    Attributes:
        losses: [b] float32 per-sample losses.
        sources: [b] int64 source ids, below 2²⁴.
        scores: [b] float32 raw self-influence; None with signal loss.
        alignment: [b] float32 inner product of the sample's gradient with the reference gradient, both projected; None
            unless the signal is alignment.
        features: [b, m] float32 joint projections of the samples' gradients; None unless `Reweighting.needs_features`.
    """

    losses: Tensor
    sources: Tensor
    scores: Tensor | None = None
    alignment: Tensor | None = None
    features: Tensor | None = None

    def rows(self) -> Tensor:
        """[b, columns] float32, one row a sample: what it has of loss, source, score, alignment and features."""
        columns = [self.losses, self.sources, self.scores, self.alignment]
        narrow = torch.stack([column.float() for column in columns if column is not None], dim=1)
        return narrow if self.features is None else torch.cat([narrow, self.features.float()], dim=1)


@dataclass(frozen=True)
class Samples:
    """Samples on the host.

    Attributes:
        losses: [N] float32, as in `MicroBatch`.
        sources: [N] int64.
        finite: [N] bool, whether everything known of the sample is finite. If not its weight is 0, and it touches no
            other sample.
        scores, alignment: [N] float32 or None.
        features: [N, m] float32 or None.
    """

    losses: Tensor
    sources: Tensor
    finite: Tensor
    scores: Tensor | None = None
    alignment: Tensor | None = None
    features: Tensor | None = None

    @classmethod
    def of_rows(cls, rows: Tensor, *, scored: bool, aligned: bool) -> "Samples":
        """From `MicroBatch.rows`; ``scored`` and ``aligned`` say whether there are scores and alignments in them."""
        narrow = 2 + scored + aligned
        columns = list(rows[:, :narrow].unbind(1))
        return cls(
            losses=columns[0],
            sources=columns[1].long(),
            finite=rows.isfinite().all(1),
            scores=columns[2] if scored else None,
            alignment=columns[-1] if aligned else None,
            features=rows[:, narrow:] if rows.shape[1] > narrow else None,
        )

    def __len__(self) -> int:
        return len(self.losses)

    def only_finite(self) -> "Samples":
        """Without those that are not finite."""
        columns = {name: value[self.finite] for name, value in vars(self).items() if value is not None}
        return replace(self, **columns)
