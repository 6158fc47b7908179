"""Counts the collectives of `torch.distributed` in a block of code."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.communication.traffic import Kind, Traffic

Arguments = tuple[Any, ...]
OPERATORS: dict[
    str, tuple[Kind, Callable[[Arguments], Any]]
] = {  # of c10d: kind, and the whole vectors among arguments
    "allreduce": ("all-reduce", lambda args: args[0]),
    "allreduce_coalesced": ("all-reduce", lambda args: args[0]),
    "reduce": ("reduce", lambda args: args[0]),
    "broadcast": ("broadcast", lambda args: args[0]),
    "allgather": ("all-gather", lambda args: args[0]),
    "allgather_base": ("all-gather", lambda args: args[0]),
    "allgather_into_tensor_coalesced": ("all-gather", lambda args: args[0]),
    "reduce_scatter": ("reduce-scatter", lambda args: args[1]),
    "reduce_scatter_base": ("reduce-scatter", lambda args: args[1]),
    "reduce_scatter_tensor_coalesced": ("reduce-scatter", lambda args: args[1]),
    "barrier": ("barrier", lambda args: ()),
}


class CountCollectives(TorchDispatchMode):
    """Inside, counts this thread's collectives by kind into ``traffic``, DeepSpeed's as well as those of PRESENCE."""

    def __init__(self) -> None:
        super().__init__()
        self.traffic: dict[Kind, Traffic] = {}

    def __torch_dispatch__(
        self, func: Any, types: Sequence[Any], args: Arguments = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func.namespace == "c10d":
            kind, whole = OPERATORS[func._schema.name.removeprefix("c10d::").strip("_")]
            found = self.traffic.setdefault(kind, Traffic())
            found.calls += 1
            tensors = [leaf for leaf in tree_leaves(whole(args)) if isinstance(leaf, Tensor)]
            found.payload += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return func(*args, **(kwargs or {}))
