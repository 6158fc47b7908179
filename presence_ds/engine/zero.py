"""Everything that reaches into DeepSpeed or into ZeRO's parameters, in one place.

Public calls of DeepSpeed are used where there are any. What has none is marked private below and is covered by tests
that compare whole trainings with a single-process reference; outside the tested versions `presence_ds.versions` warns.
"""

from typing import Any

from deepspeed.runtime.zero.partition_parameters import ZeroParamStatus
from torch import Tensor

from presence_ds.capture import full_shape
from presence_ds.errors import ConfigError


def is_partitioned(parameter: Tensor) -> bool:
    """Whether ZeRO-3 holds only a partition of ``parameter`` on this rank at the moment (private: ``ds_status``)."""
    status = getattr(parameter, "ds_status", ZeroParamStatus.AVAILABLE)
    return bool(status != ZeroParamStatus.AVAILABLE)


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


def set_gradient_divisor(optimizer: Any, divisor: float) -> None:
    """Have DeepSpeed divide the accumulated gradients by ``divisor`` in the unscaling that precedes its clipping."""
    optimizer.override_loss_scale(divisor)


def check_engine(engine: Any) -> None:
    """Raise `ConfigError` if strategy one_pass cannot run on this DeepSpeed engine, naming the configuration field."""
    if engine.fp16_enabled():
        raise ConfigError("fp16.enabled is true: strategy one_pass supports bf16 and float32; use bf16.enabled")
    if engine.zero_optimization_stage() == 0:
        raise ConfigError("zero_optimization.stage is 0: strategy one_pass works on stages 1, 2 and 3")
    if engine.torch_autocast_enabled():
        raise ConfigError("torch_autocast.enabled is true: strategy one_pass supports bf16.enabled or float32 instead")
    if engine.pipeline_parallelism:
        raise ConfigError("the model is a PipelineModule: strategy one_pass works without pipeline parallelism")
    if not engine.managed_gradient_accumulation():
        raise ConfigError("managed_gradient_accumulation is false: strategy one_pass needs DeepSpeed to manage it")
    if engine.gradient_accumulation_steps() > 1 and not hasattr(engine.optimizer, "override_loss_scale"):
        raise ConfigError(
            "gradient_accumulation_steps is above 1 with zero_optimization.stage 1, bf16 and "
            "data_types.grad_accum_dtype fp32, whose optimizer cannot rescale accumulated gradients: use stage 2, or "
            "leave grad_accum_dtype unset"
        )
