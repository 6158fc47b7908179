"""Everything that reaches into DeepSpeed or into ZeRO's parameters, in one place.

Public calls of DeepSpeed are used where there are any. What has none is marked private below and is covered by tests
that compare whole trainings with a single-process reference; outside the tested versions `presence_ds.versions` warns.
"""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from deepspeed.runtime.base_optimizer import ZeROOptimizer
from deepspeed.runtime.zero.parameter_offload import FWD_MODULE_STACK
from deepspeed.runtime.zero.partition_parameters import ZeroParamStatus
from deepspeed.runtime.zero.partitioned_param_coordinator import PartitionedParameterCoordinator
from deepspeed.utils import get_z3_leaf_modules
from torch import Tensor, nn

from presence_ds.capture import attributes_as, full_shape
from presence_ds.errors import ConfigError, NonFiniteError


def is_managed(parameter: Tensor) -> bool:
    """Whether ZeRO-3 partitions ``parameter`` and it is trained (private: ``ds_id``)."""
    return hasattr(parameter, "ds_id") and parameter.requires_grad


def is_partitioned(parameter: Tensor) -> bool:
    """Whether ZeRO-3 holds only a partition of ``parameter`` on this rank at the moment (private: ``ds_status``)."""
    status = getattr(parameter, "ds_status", ZeroParamStatus.AVAILABLE)
    return bool(status != ZeroParamStatus.AVAILABLE)


def gathers_parameters(model: nn.Module) -> bool:
    """Whether a forward of ``model`` is a collective, because ZeRO-3 gathers its parameters (private: ``ds_id``)."""
    return any(hasattr(parameter, "ds_id") for parameter in model.parameters())


def pose_as_whole(parameter: Tensor) -> None:
    """Give a partitioned parameter a stand-in of its full shape that holds one number.

    Autograd checks a gradient's shape against the parameter's. An ordinary backward passes that check because it
    gathers the parameter; the weight-gradient sweep does not need the values and saves the all-gather.
    `restore_partition` undoes it once the gradient has been taken up.
    """
    parameter.data = parameter.data.new_zeros(1).expand(full_shape(parameter))


def restore_partition(parameter: Tensor) -> None:
    """Make ``data`` of a partitioned parameter empty again, as ZeRO-3 left it."""
    if is_partitioned(parameter) and parameter.data.numel():
        parameter.data = parameter.data.new_empty(0)


def forget_model(model: nn.Module) -> None:
    """Have ZeRO-3 let go of ``model``, which will not run again (private: it keeps every one for good)."""
    FWD_MODULE_STACK[:] = [module for module in FWD_MODULE_STACK if module is not model]


def forget_release_plan() -> None:
    """Have ZeRO-3 decide anew, at its next steps, which parameters to release after which module.

    It remembers a decision for as long as the process lives, although the order of modules it was made for may have
    been given up. After forwards without a backward, before training, that would be to release everything after every
    forward, and to gather it in the backward module by module, without prefetching.
    (Private: that the method is an `lru_cache` inside a wrapper. Where it is not, there is nothing to forget.)
    """
    method = getattr(PartitionedParameterCoordinator, "_PartitionedParameterCoordinator__params_to_release", None)
    for cell in getattr(method, "__closure__", None) or ():
        if hasattr(cell.cell_contents, "cache_clear"):
            cell.cell_contents.cache_clear()


@contextmanager
def leaf_modules_at_rest(model: nn.Module) -> Iterator[None]:
    """Inside a forward whose backward forms no gradients for the modules that ZeRO-3 treats as one leaf, of experts.

    Their hook would reduce zeros for parameters that have no gradient yet, and the true gradients a second time later
    (private: that it is a full backward hook of torch, all of which are set aside).
    """
    with ExitStack() as stack:
        for module in get_z3_leaf_modules(model):
            stack.enter_context(attributes_as(module, {"_backward_hooks": OrderedDict()}))
        yield


def loss_scale(engine: Any) -> float:
    """What DeepSpeed multiplies the loss by before its backward: 1 without fp16."""
    return float(engine.optimizer.loss_scale) if engine.fp16_enabled() else 1.0


def smallest_loss_scale(engine: Any) -> float:
    """The loss scale below which dynamic scaling does not go; the scale itself where it is fixed (private)."""
    scaler = getattr(engine.optimizer, "loss_scaler", None)
    return float(getattr(scaler, "min_scale", loss_scale(engine)))


@contextmanager
def loss_scale_exhausted_is_nonfinite() -> Iterator[None]:
    """Give the error of DeepSpeed's dynamic loss scaling at its end a type (private: its words)."""
    try:
        yield
    except Exception as error:
        if "loss scale already at minimum" not in str(error):
            raise
        raise NonFiniteError(
            "a gradient is not finite at the smallest loss scale; nothing was updated (look at the data and the "
            "learning rate, or use bf16)"
        ) from None


def can_divide_gradients(engine: Any) -> bool:
    """Whether `dividing_gradients` works with the engine's optimizer."""
    return hasattr(engine.optimizer, "override_loss_scale") or not isinstance(engine.optimizer, ZeROOptimizer)


@contextmanager
def dividing_gradients(engine: Any, divisor: float) -> Iterator[None]:
    """Have the optimizer step inside divide the accumulated gradients by ``divisor`` before it clips them.

    ZeRO does it on its shards, in the unscaling that precedes its clipping. (There the overridden scale also keeps a
    step at which dynamic scaling raises the scale exact: DeepSpeed raises it first and unscales by the new one.)
    """
    optimizer = engine.optimizer
    if not isinstance(optimizer, ZeROOptimizer):
        if divisor != 1.0:
            for parameter in engine.module.parameters():
                if parameter.grad is not None:
                    parameter.grad.div_(divisor)
        yield
        return
    scale = loss_scale(engine)
    if divisor == 1.0 and scale == 1.0:
        yield
        return
    optimizer.override_loss_scale(divisor * scale)
    try:
        yield
    finally:  # private: there is no call to end it
        optimizer.custom_loss_scaler, optimizer.external_loss_scale = False, None


def restore_clipping(engine: Any) -> None:
    """Have the optimizer clip gradients as the engine is configured, after a load (private: some wrappers load it)."""
    if hasattr(engine.optimizer, "clip_grad"):
        engine.optimizer.clip_grad = engine.gradient_clipping()


def copy_recovery_scripts_once(engine: Any) -> None:
    """Let the scripts that turn a checkpoint into plain weights, which DeepSpeed adds to every one, be put there once.

    A checkpoint need not have them (private: the method that copies them).
    """
    copy_scripts = getattr(engine, "_copy_recovery_script", None)
    if copy_scripts is None:
        raise ConfigError("this version of deepspeed has no _copy_recovery_script: use a version that is tested")

    def copy_once(folder: str) -> None:
        if not (Path(folder) / "zero_to_fp32.py").exists():
            with suppress(OSError):
                copy_scripts(folder)

    engine._copy_recovery_script = copy_once
