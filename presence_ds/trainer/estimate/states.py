"""Memory of what ZeRO shards: parameters, gradients, optimizer states and its buffers, as DeepSpeed 0.19 holds them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from presence_ds.trainer.recipe.deepspeed import is_offloaded

FP32 = 4  # bytes
BUCKET = 500_000_000  # elements: DeepSpeed's default of reduce_bucket_size
PERSISTENCE = 100_000  # elements: of stage3_param_persistence_threshold
MAX_LIVE = 1_000_000_000  # elements: of stage3_max_live_parameters


@dataclass(frozen=True)
class ModelStates:
    """Bytes on one rank.

    Attributes:
        parameters: in the precision that the model computes in; at stage 3 the shard and what is never sharded.
        gathered: at stage 3, most that is whole at a time.
        gradients: what is accumulated until the optimizer step.
        optimizer: float32 master weights, where the model computes in another precision or ZeRO keeps them apart, and
            the optimizer's moments.
        buffers: ZeRO's gradient buckets.
        host: of all this, and of the copies that offloading needs, what lies in the host's memory instead.
    """

    parameters: float
    gathered: float
    gradients: float
    optimizer: float
    buffers: float
    host: float

    @property
    def device(self) -> float:
        """All of it on the device."""
        return self.parameters + self.gathered + self.gradients + self.optimizer + self.buffers


def model_states(
    sizes: Iterable[int],
    section: dict[str, Any],
    stage: int,
    *,
    ranks: int,
    bytes_per_element: int,
    moments: int,
    accumulation_steps: int,
) -> ModelStates:
    """What one of ``ranks`` ranks holds at ZeRO ``stage`` at most, at the end of a backward.

    Args:
        sizes: elements of every parameter.
        section: ``zero_optimization`` of the DeepSpeed JSON; its own stage is not read.
        bytes_per_element: of the precision that the model computes in, and accumulates gradients in.
        moments: float32 tensors of the optimizer per parameter: 2 for Adam.
    """
    sizes = list(sizes)
    elements, width = sum(sizes), bytes_per_element
    shard = elements / ranks if stage >= 1 else float(elements)
    parameters = gradients = float(elements * width)
    gathered = buffers = host = 0.0
    if stage == 3:
        kept = sum(size for size in sizes if size <= section.get("stage3_param_persistence_threshold", PERSISTENCE))
        live = section.get("stage3_max_live_parameters", MAX_LIVE)
        parameters = shard * width + kept * width
        gathered = min(elements - kept, live) * width
    if stage >= 2:
        gradients = shard * width
    has_master = stage >= 1 or width != FP32
    optimizer = shard * FP32 * (moments + has_master)
    if stage >= 1:
        overlaps = section.get("overlap_comm", stage == 3) and stage < 3
        buffers = section.get("reduce_bucket_size", BUCKET) * width * (2 if overlaps else 1)
    if stage >= 1 and is_offloaded(section, "optimizer"):
        host += optimizer + shard * FP32  # with the gradients that the optimizer on the host reads
        optimizer = 0.0
        if stage < 3:
            host += elements * width if accumulation_steps > 1 else 0
            gradients = 0.0
    if stage == 3 and is_offloaded(section, "param"):
        host += shard * width
        parameters -= shard * width
    return ModelStates(parameters, gathered, gradients, optimizer, buffers, host)
