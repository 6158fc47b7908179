"""Samples of an optimizer step, and the rows in which ranks exchange them."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
from torch import Tensor

# One collective into one tensor, however many ranks there are; newer releases of torch warn of its older name.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor

COLUMNS = ("scores", "reference_alignment", "vocabulary_scores", "momentum_alignment")  # of a row, where there are any


@dataclass(frozen=True)
class MicroBatch:
    """One rank's micro-batch as it was scored, on the device.

    Attributes:
        losses: [b] float32 per-sample losses.
        targets: [b] int64 numbers of target tokens, up to 2²⁴.
        sources: [b] int64 source ids, below 2²⁴.
        scores: [b] float32 raw self-influence; None where no gradients are computed.
        reference_alignment: [b] float32 inner product of the sample's gradient with the reference gradient, both
            projected; None without a reference.
        vocabulary_scores: [b] float32 the part of the scores that is in embeddings and output head; None unless samples
            are calibrated on it.
        momentum_alignment: [b] float32 inner product of the sample's gradient with the mean direction of the steps
            before; None unless samples are calibrated on it.
        features: [b, m] float32 joint projections of the samples' gradients; None unless gradients are compared.
        sketches: [b, m] float32 what the alignment with the step's other samples is computed from; None unless the
            configuration aligns. Rows that do not count are overwritten.
    """

    losses: Tensor
    targets: Tensor
    sources: Tensor
    scores: Tensor | None = None
    reference_alignment: Tensor | None = None
    vocabulary_scores: Tensor | None = None
    momentum_alignment: Tensor | None = None
    features: Tensor | None = None
    sketches: Tensor | None = None

    def rows(self) -> Tensor:
        """[b, columns] float32, one row a sample: loss, number of targets, source, and those of `COLUMNS` there are.

        Features and sketches are no part of it; where they are not finite the loss is NaN, so that all ranks know.
        """
        losses = self.losses
        for vectors in (self.features, self.sketches):
            if vectors is not None:
                losses = losses.masked_fill(~vectors.isfinite().all(1), torch.nan)
        columns = [losses, self.targets, self.sources, *(getattr(self, name) for name in COLUMNS)]
        return torch.stack([column.float() for column in columns if column is not None], dim=1)


@dataclass(frozen=True)
class Samples:
    """Samples on the host.

    Attributes:
        losses: [N] float32, as in `MicroBatch`.
        targets: [N] int64.
        sources: [N] int64.
        counted: [N] bool, whether the sample has targets and everything known of it is finite. If not its weight is 0,
            and it touches no other sample.
        scores, reference_alignment, vocabulary_scores, momentum_alignment: [N] float32 or None.
        alignment: [N] float32, inner product of the sample's gradient with the mean gradient of the step's other
            samples (`presence_ds.reweighting.alignment`); None before the step's last micro-step, or without.
    """

    losses: Tensor
    targets: Tensor
    sources: Tensor
    counted: Tensor
    scores: Tensor | None = None
    reference_alignment: Tensor | None = None
    vocabulary_scores: Tensor | None = None
    momentum_alignment: Tensor | None = None
    alignment: Tensor | None = None

    @classmethod
    def of_rows(cls, rows: Tensor, *more: str) -> "Samples":
        """From `MicroBatch.rows`; ``more`` are the names of the fields in them after the sources."""
        losses, numbers, sources, *columns = rows.unbind(1)
        targets = numbers.long()
        return cls(
            losses=losses,
            targets=targets,
            sources=sources.long(),
            counted=rows.isfinite().all(1) & (targets > 0),
            **dict(zip(more, columns, strict=True)),
        )

    def __len__(self) -> int:
        return len(self.losses)

    @property
    def has_targets(self) -> Tensor:
        """Whether a sample has a target token, [N] bool."""
        return self.targets > 0

    @property
    def nonfinite(self) -> int:
        """Number of samples that have targets, and a loss, score or gradient that is not finite."""
        return int((self.has_targets & ~self.counted).sum())

    def usefulness(self, *, with_reference: bool) -> Tensor:
        """What the samples are taken to be good for: alignment with the reference, or with the step's others; float64.

        Both are there (`presence_ds.reweighting.ReweightingConfig.alignment_with`).
        """
        found = self.reference_alignment if with_reference else self.alignment
        assert found is not None
        return found.double()

    def only_counted(self) -> "Samples":
        """Without those that do not count."""
        return self.part(lambda column: column[self.counted])

    def part(self, of: Callable[[Tensor], Tensor]) -> "Samples":
        """Some of them: what ``of`` leaves of a column [N, …]."""
        return replace(self, **{name: of(value) for name, value in vars(self).items() if value is not None})


def gather_rows(local: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """``local`` ([n, …], of one shape on every rank) of all ranks of ``group``, ordered by rank: [ranks · n, …]."""
    every = local.new_empty(dist.get_world_size(group) * local.shape[0], *local.shape[1:])
    _all_gather(every, local, group=group)
    return every
