"""Everything that reaches into DeepSpeed or into ZeRO's parameters, in one place.

Public calls of DeepSpeed are used where there are any. What has none is marked private below and is covered by tests
that compare whole trainings with a single-process reference; outside the tested versions `presence_ds.versions` warns.
"""

from typing import Any

from deepspeed.runtime.zero.partition_parameters import ZeroParamStatus
from torch import Tensor

from presence_ds.capture import full_shape


def is_managed(parameter: Tensor) -> bool:
    """Whether ZeRO-3 partitions ``parameter`` and it is trained (private: ``ds_id``)."""
    return hasattr(parameter, "ds_id") and parameter.requires_grad


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
