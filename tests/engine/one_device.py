"""A device without a device: mistakes of placement show where there is no accelerator.

Tensors of the device are on torch's meta device, without numbers; those of the host are real. (Torch's FakeTensorMode
with device cuda would be the same, but where torch is built without CUDA such a tensor has no backward.)
"""

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from presence_ds import PresenceConfig
from presence_ds.engine.presence import Presence
from presence_ds.engine.strategies import MicroStep
from presence_ds.reweighting import samples

DEVICE = torch.device("meta")
aten = torch.ops.aten
MOVES = {aten._to_copy.default, aten.copy_.default}
WITH_UNKNOWN_SIZE = {
    *(aten.nonzero.default, aten.masked_select.default, aten._unique2.default, aten.unique_dim.default),
    *(aten.repeat_interleave.Tensor, aten.bincount.default, aten.equal.default, aten.is_nonzero.default),
}
BY_INDEX = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}


class OneDevice(TorchDispatchMode):
    """Inside, an operation on a tensor of the device and one of the host raises, as it does on a GPU.

    What is asked of a tensor of the device is answered by numbers from 1 to 5, or by ``answer``: a question of one
    tensor of bool. The first of several floats is NaN where the answer is False.

    Attributes:
        waits: lines of this package that let the host wait for the device so far: to be answered, or to hand over
            numbers. What models of transformers ask themselves, about the positions of samples that have no mask for
            one, is not in it.
    """

    def __init__(self, *, answer: bool = True) -> None:
        super().__init__()
        self.waits: list[str] = []
        self._answer = answer

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        on_device = [tensor for tensor in tensors if tensor.device == DEVICE]
        if self._waits(func, args, kwargs):
            self.waits += _asking()
        if on_device and func is aten._local_scalar_dense.default:
            return self._answer if args[0].dtype == torch.bool else 1
        if on_device and func is aten._to_copy.default and kwargs.get("device", DEVICE) != DEVICE:
            return self._numbers(args[0]).to(kwargs.get("dtype"))
        if on_device and func not in MOVES:
            host = [tensor for tensor in tensors if tensor.device != DEVICE]
            if func in BY_INDEX and args[0].device == DEVICE:
                host = [tensor for tensor in host if tensor.dtype not in (torch.int64, torch.bool)]
            # a number on the host may stand in an operation of the device, but not be changed by one
            mixed = [tensor for tensor in host if tensor.dim() or tensor is args[0]]
            assert not mixed, f"{func} mixes the device's {on_device[0].shape} with the host's {mixed[0].shape}"
        return func(*args, **kwargs)

    @staticmethod
    def _waits(func: Any, args: Any, kwargs: dict[str, Any]) -> bool:
        """Whether a GPU would let the host wait; for memory that it hands over it need not."""
        if func is aten._local_scalar_dense.default or func in WITH_UNKNOWN_SIZE:
            return bool(args[0].device == DEVICE)
        if func is aten._to_copy.default:
            moves = (args[0].device == DEVICE) != (kwargs.get("device", args[0].device) == DEVICE)
            return moves and not kwargs.get("non_blocking")
        if func is aten.copy_.default:
            return (args[0].device == DEVICE) != (args[1].device == DEVICE) and not (args[2:] or [False])[0]
        return False

    def _numbers(self, like: Tensor) -> Tensor:
        if like.dtype == torch.bool:
            numbers = torch.ones(like.shape, dtype=torch.bool)
            numbers.view(-1)[:1] = self._answer
            return numbers
        numbers = (torch.arange(like.numel()) * 7 % 5 + 1).view(like.shape).to(like.dtype)
        if not self._answer and numbers.is_floating_point() and numbers.dim():
            numbers[0] = torch.nan
        return numbers


def _asking() -> list[str]:
    """The line that asks, if it is not one of transformers."""
    frames = [frame for frame in traceback.extract_stack() if f"{os.sep}torch{os.sep}" not in frame.filename]
    asking = [frame for frame in frames if frame.filename != __file__][-1]
    return [] if "transformers" in asking.filename else [f"{asking.filename}:{asking.lineno}: {asking.line}"]


@contextmanager
def collectives_of_the_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Inside, what ranks exchange must be on the device, as NCCL needs it, and stays as it is."""

    def exchange(*tensors: Tensor, **options: Any) -> None:
        assert {tensor.device for tensor in tensors} == {DEVICE}, "a collective is given a tensor of the host"

    with monkeypatch.context() as patch:
        patch.setattr(dist, "all_reduce", exchange)
        patch.setattr(samples, "_all_gather", exchange)
        yield


class Engine:
    """What a strategy asks of the engine, without DeepSpeed."""

    def __init__(
        self,
        model: nn.Module,
        config: PresenceConfig,
        *,
        micro_batch_size: int,
        accumulation_steps: int,
        may_overflow: bool = True,
    ) -> None:
        self.module, self.device, self.data_parallel_group = model, DEVICE, dist.group.WORLD
        self.train_micro_batch_size_per_gpu = lambda: micro_batch_size
        self.gradient_accumulation_steps = lambda: accumulation_steps
        self.fp16_enabled = lambda: False
        self.presence = Presence(config, self)
        self._last, self._may_overflow = False, may_overflow

    def micro_step(self) -> MicroStep:
        return MicroStep(step=1, last=self._last, may_overflow=self._may_overflow)

    def is_gradient_accumulation_boundary(self) -> bool:
        return self._last

    def boundary(self, is_boundary: bool) -> Any:
        return nullcontext()

    def forward_as(self, substitute: Any, *args: Any, **batch: Any) -> Any:
        return substitute(self.module.forward, *args, **batch)

    def train(self, batches: list[dict[str, Any]], sources: Tensor) -> None:
        """One optimizer step."""
        strategy = self.presence.strategy
        self.presence.begin_step()
        strategy.forget_step()
        for number, batch in enumerate(batches, start=1):
            self._last = number == len(batches)
            loss = strategy.forward(self, (), batch, sources)
            assert loss.device == DEVICE
            strategy.backward(self, loss, Tensor.backward)
        self.presence.settle()
