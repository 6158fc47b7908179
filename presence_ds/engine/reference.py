"""The running mean gradient of a trusted stream, in the space of the sketches."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from presence_ds.errors import ConfigError


class Reference:
    """P ḡ_ref: an exponentially decaying average over the reference micro-batches of all ranks."""

    def __init__(self, decay: float, group: dist.ProcessGroup | None, device: torch.device | str = "cpu") -> None:
        """``decay`` is per `update`; ``group`` is the data-parallel group; ``device`` is where the model computes."""
        self._decay = decay
        self._group = group
        self._device = device
        self._sum: Tensor | None = None  # [m] float32 on the device, decayed
        self._weight = 0.0  # decayed sum of ones: the start at zero is divided out

    def update(self, sketches: Tensor) -> None:
        """Take in the sketches [B, m] of a micro-batch on every rank; samples not finite are passed over."""
        self._check(sketches)
        finite = sketches.isfinite().all(1)
        totals = torch.cat([torch.where(finite[:, None], sketches, 0.0).sum(0), finite.sum().float()[None]])
        dist.all_reduce(totals, group=self._group)
        if totals[-1] == 0:
            return
        mean = totals[:-1] / totals[-1]
        self._sum = (1 - self._decay) * mean + (0.0 if self._sum is None else self._decay * self._sum)
        self._weight = (1 - self._decay) + self._decay * self._weight

    def align(self, sketches: Tensor) -> Tensor:
        """a_i = ⟨P g_i, P ḡ_ref⟩ for sketches [B, m]: [B].

        Raises:
            ConfigError: there has been no reference micro-batch yet, or none of sketches of this width.
        """
        if self._sum is None:
            raise ConfigError(
                "samples are compared with a reference, by presence.signal or presence.alignment_with, and there is "
                "none: call engine.observe_reference(...) with a batch of the trusted stream before the first step"
            )
        self._check(sketches)
        return sketches @ (self._sum / self._weight)

    def _check(self, sketches: Tensor) -> None:
        """Raise `ConfigError` for sketches [B, m] of another width than those that the checkpoint's reference is of."""
        if self._sum is not None and self._sum.numel() != sketches.shape[1]:
            raise ConfigError(
                f"presence.alignment_dim gives sketches of {sketches.shape[1]:,} numbers, and the checkpoint's "
                f"reference gradient has {self._sum.numel():,}: set it to that, or train anew"
            )

    def state_dict(self) -> dict[str, Any]:
        """State for the checkpoint, on the host."""
        return {"sum": None if self._sum is None else self._sum.cpu(), "weight": self._weight}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave, on the device whatever the checkpoint was read to."""
        held = state["sum"]
        self._sum = None if held is None else held.to(self._device, torch.float32, copy=True)
        self._weight = state["weight"]


class MeanGradient:
    """P ḡ of a whole stream, each sample of which is seen once on one of the ranks, by a model that stands still.

    Sums are float64, so that the mean in float32 does not depend on how the samples were spread.
    """

    def __init__(self, group: dist.ProcessGroup | None) -> None:
        """``group`` is the data-parallel group."""
        self._group = group
        self._totals: Tensor | None = None  # [m + 1]: the sum of the sketches, and their number

    def add(self, sketches: Tensor, counts: Tensor) -> None:
        """Take in sketches [B, m] of the samples that count ([B] bool); those not finite are passed over."""
        counts = counts & sketches.isfinite().all(1)
        total = torch.where(counts[:, None], sketches, 0.0).sum(0, dtype=torch.float64)
        totals = torch.cat([total, counts.sum().double()[None]])
        self._totals = totals if self._totals is None else self._totals + totals

    def mean(self) -> Tensor:
        """[m] float32, on every rank alike; every rank has added something.

        Raises:
            ConfigError: no sample counts.
        """
        assert self._totals is not None
        dist.all_reduce(self._totals, group=self._group)
        if self._totals[-1] == 0:
            raise ConfigError("reference.sources: no sample of theirs has targets and a finite gradient: name others")
        return (self._totals[:-1] / self._totals[-1]).float()
