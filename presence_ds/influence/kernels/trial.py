"""Whether a kernel is used: on a GPU with Triton, where it has given what torch gives."""

import os
import warnings
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec

import torch
import torch.distributed as dist
from torch import Tensor

_DTYPES = (torch.bfloat16, torch.float16, torch.float32)
_passed: set[tuple[object, ...]] = set()
_failed: set[str] = set()


def passes(
    kernel: str, like: Tensor, variant: object, compare: Callable[[torch.dtype, torch.device], tuple[float, float]]
) -> bool:
    """Whether ``kernel`` is to be used on tensors ``like``, in float32 or narrower on a GPU; or else torch.

    The first time in a process, mostly while the engine tries the model out, ``compare`` runs the kernel beside torch
    on small random input. Where it raises or is off by more than rounding, which is said once, torch is taken for good.

    Ranks need not decide alike: what has to be the same on all of them, to the bit, they compute from figures that each
    has found of its own samples and has sent to all.

    Args:
        kernel: name, for the warning.
        like: what the kernel would read. Subclasses of tensors are left to torch.
        variant: hashable; what else the kernel is compiled for.
        compare: from dtype and device to an error and the largest one that may be.
    """
    if (
        type(like) is not Tensor
        or like.dtype not in _DTYPES
        or not (like.is_cuda or (like.is_cpu and _interpreted()))
        or kernel in _failed
        or not _triton_found()
    ):
        return False
    key = kernel, like.dtype, like.device, variant
    if key not in _passed:
        reason = _failure(lambda: compare(like.dtype, like.device))
        if reason is not None:
            _failed.add(kernel)
            if not dist.is_initialized() or dist.get_rank() == 0:
                warnings.warn(
                    f"the Triton kernel {kernel} fails its trial in {like.dtype} on {like.device}, and PyTorch's own "
                    f"operations take its place: {reason}; presence.kernels false leaves it alone",
                    stacklevel=2,
                )
            return False
        _passed.add(key)
    return True


def failed() -> list[str]:
    """Kernels that have failed their trial in this process, so that torch takes their place."""
    return sorted(_failed)


def _failure(compare: Callable[[], tuple[float, float]]) -> str | None:
    try:
        error, allowed = compare()
    except Exception as exception:  # of a compiler, a driver, a linker: torch needs none of them
        return " ".join(f"{type(exception).__name__}: {exception}".split())[:300]
    return None if error <= allowed else f"it is off by {error:.1e}, where {allowed:.1e} is rounding"  # NaN is not


@cache
def _triton_found() -> bool:
    return find_spec("triton") is not None


def _interpreted() -> bool:
    """Whether Triton runs kernels without a GPU, slowly, as tests do."""
    return os.environ.get("TRITON_INTERPRET") == "1"
