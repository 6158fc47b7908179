"""What a step on the other samples would do for a sample: its alignment with their mean gradient, from sketches.

With sketches p_i, linear in the gradients g_i and E⟨p_i, p_j⟩ = ⟨g_i, g_j⟩, and S = Σ_j p_j over the N samples of an
optimizer step, a_i = (⟨p_i, S⟩ − ‖p_i‖²) / (N − 1) estimates ⟨g_i, G⟩, G being the gradient of the data: without bias,
since the sample's own term, which would feign an alignment that grows with the norm, is left out. What ranks exchange
is S.
"""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor


def leave_one_out(
    sketches: Sequence[Tensor], counted: Sequence[Tensor], group: dist.ProcessGroup | None
) -> tuple[Tensor, Tensor]:
    """a_i of this rank's samples, [n] float32 on the device, and S, [m]; 0 for samples that do not count, or are alone.

    A collective of ``group``: one all-reduce of m + 1 numbers.

    Args:
        sketches: [b, m] float32 of every micro-batch; rows that do not count are overwritten with 0.
        counted: [b] bool of every micro-batch, on the device.
    """
    for rows, kept in zip(sketches, counted, strict=True):
        rows.masked_fill_(~kept[:, None], 0.0)
    number = torch.stack([kept.sum() for kept in counted]).sum()
    totals = torch.cat([*(rows.sum(0, keepdim=True) for rows in sketches)]).sum(0)
    totals = torch.cat([totals, number.to(totals.dtype)[None]])
    dist.all_reduce(totals, group=group)
    others = (totals[-1] - 1.0).clamp(min=1.0)
    own = torch.cat([torch.linalg.vecdot(rows, rows) for rows in sketches])
    products = torch.cat([rows @ totals[:-1] for rows in sketches])
    return torch.where(totals[-1] > 1.0, (products - own) / others, 0.0), totals[:-1]
