"""The `Conv1D` of transformers (GPT-2), a linear layer with a weight [inputs, outputs]: G_i = Σ_t a_t ⊗ δ_t."""

import torch
from torch import Tensor
from transformers.pytorch_utils import Conv1D as Module

from presence_ds.capture.registry import register
from presence_ds.capture.rule import Rule


@register(Module)
class Conv1D(Rule):
    """``a`` [B·…, p] to [B·…, q]."""

    def forward(self, a: Tensor) -> tuple[Tensor, tuple[Tensor]]:
        output = torch.addmm(self.module.bias, a.reshape(-1, a.shape[-1]), self.module.weight)
        return output.view(*a.shape[:-1], output.shape[-1]), (a,)

    def backward(self, weight: Tensor, delta: Tensor, a: Tensor) -> Tensor | None:
        self.capture.add_outer(self.module.weight, rows=a, cols=delta)
        self.capture.add_summed(self.bias, delta)
        return delta @ weight.mT if self.wanted[0] else None
