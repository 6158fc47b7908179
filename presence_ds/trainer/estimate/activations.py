"""Memory of what a micro-step keeps and computes, measured on a run of the real code without any numbers in it.

The model, its inputs and everything computed from them are on torch's meta device, which has shapes and dtypes alone;
every allocation and every release is counted.
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from presence_ds.engine import PresenceConfig
from presence_ds.engine.strategies import build_strategy


class Allocations(TorchDispatchMode):
    """Counts the bytes of the tensors that operations inside make, on ``device`` alone.

    Attributes:
        now: bytes of those that are still alive.
        peak: most of them at a time.
    """

    def __init__(self, device: str) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._device = device
        self._alive: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default and args[0].device.type == "meta":
            return True  # transformers asks whether all positions or masks are as usual
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.device.type == self._device:
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._alive:
            self._alive[key] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._release, key)

    def _release(self, key: int) -> None:
        self.now -= self._alive.pop(key)


class _Attention(Function):
    """Keeps what the fused kernels keep: queries, keys, values, the output, and a float32 number per query."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        batch, heads, positions, _ = query.shape
        output = query.new_empty(batch, positions, heads, value.shape[-1]).transpose(1, 2)  # their layout
        ctx.save_for_backward(query, key, value, output, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return output

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.empty_like(tensor) for tensor in ctx.saved_tensors[:3])


@contextmanager
def fused_attention() -> Iterator[None]:
    """Inside, `scaled_dot_product_attention` keeps what accelerators do; on the meta device torch takes it apart.

    It is replaced, and not intercepted, because activation checkpointing calls it again inside the backward, which
    torch's function modes do not reach.
    """
    original = F.scaled_dot_product_attention

    def fused(query: Tensor, *args: Any, **kwargs: Any) -> Any:
        if query.device.type != "meta":
            return original(query, *args, **kwargs)
        return _Attention.apply(query, *args[:2])

    F.scaled_dot_product_attention = fused
    try:
        yield
    finally:
        F.scaled_dot_product_attention = original


def micro_step_peak(
    model: nn.Module, config: PresenceConfig | None, inputs: Tensor, labels: Tensor | None = None
) -> tuple[int, int]:
    """Bytes that one forward and backward of ``inputs`` ([B, T] int64) has at most beside parameters and gradients.

    A gradient of a parameter counts until it is complete, when ZeRO takes it up.

    Args:
        config: the method; None: plain training with the same loss.
        labels: int64 [B, T], of an encoder-decoder model of another T. None: ``inputs``.

    Returns:
        That peak, and the bytes of the projection matrices, which stay.
    """
    device = inputs.device.type
    hooks = [p.register_post_accumulate_grad_hook(_drop_gradient) for p in model.parameters() if p.requires_grad]
    try:
        with fused_attention(), Allocations(device) as allocations:
            strategy = build_strategy(model, config or PresenceConfig(signal="loss"), device=inputs.device)
            kept = allocations.now
            strategy.run_alone({"input_ids": inputs, "labels": inputs if labels is None else labels})
            return allocations.peak - kept, kept
    finally:
        for hook in hooks:
            hook.remove()


def _drop_gradient(parameter: Tensor) -> None:
    parameter.grad = None
