"""A device without a device: mistakes of placement show where there is no accelerator.

Tensors of the device are on torch's meta device, without numbers; those of the host are real. (Torch's FakeTensorMode
with device cuda would be the same, but where torch is built without CUDA such a tensor has no backward.)
"""

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
BY_INDEX = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}


class OneDevice(TorchDispatchMode):
    """Inside, an operation on a tensor of the device and one of the host raises, as it does on a GPU.

    What is asked of a tensor of the device is answered by numbers from 1 to 5, or by ``answer``: a question of one
    tensor of bool. The first of several floats is NaN where the answer is False.
    """

    def __init__(self, *, answer: bool = True) -> None:
        super().__init__()
        self._answer = answer

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        on_device = [tensor for tensor in tensors if tensor.device == DEVICE]
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

    def _numbers(self, like: Tensor) -> Tensor:
        if like.dtype == torch.bool:
            numbers = torch.ones(like.shape, dtype=torch.bool)
            numbers.view(-1)[:1] = self._answer
            return numbers
        numbers = (torch.arange(like.numel()) * 7 % 5 + 1).view(like.shape).to(like.dtype)
        if not self._answer and numbers.is_floating_point() and numbers.dim():
            numbers[0] = torch.nan
        return numbers


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

    def __init__(self, model: nn.Module, config: PresenceConfig, *, micro_batch_size: int, accumulation_steps: int):
        self.module, self.device, self.data_parallel_group = model, DEVICE, dist.group.WORLD
        self.train_micro_batch_size_per_gpu = lambda: micro_batch_size
        self.gradient_accumulation_steps = lambda: accumulation_steps
        self.fp16_enabled = lambda: False
        self.presence = Presence(config, self)
        self._last = False

    def micro_step(self) -> MicroStep:
        return MicroStep(step=1, last=self._last, may_overflow=True)

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
