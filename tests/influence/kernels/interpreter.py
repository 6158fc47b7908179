"""A process in which Triton interprets kernels on the CPU: it looks at the environment when it is imported.

bfloat16 is an unsigned integer there, and `tl.dot` of two multiplies those (Triton 3.7 to 3.9). Here it multiplies the
numbers, which float32 holds: nothing is rounded that a GPU does not round.
"""

import functools
import multiprocessing
import os
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from typing import Any

VARIABLE = "TRITON_INTERPRET"


def interpreted(test: Callable[..., None]) -> Callable[..., None]:
    """A test that runs in such a process, one for all tests of this one."""
    if os.environ.get(VARIABLE) == "1":
        return test

    @functools.wraps(test)
    def run(**arguments: Any) -> None:
        failure = _process().submit(_run, test.__module__, test.__name__, arguments).result()
        assert failure is None, failure

    return run


@functools.cache
def _process() -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, context, initializer=_prepare)


def _run(module: str, name: str, arguments: dict[str, Any]) -> str | None:
    try:
        getattr(import_module(module), name)(**arguments)
    except BaseException:  # pytest's own cannot be pickled
        return traceback.format_exc()
    return None


def _prepare() -> None:
    os.environ[VARIABLE] = "1"
    import numpy
    import torch
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    def numbers(handle: Any) -> Any:
        if not handle.dtype.is_bf16():
            return handle.data
        return (handle.data.astype(numpy.uint32) << 16).view(numpy.float32)

    def dot(self: Any, a: Any, b: Any, added: Any, *_: Any) -> Any:
        product = numpy.matmul(numbers(a), numbers(b), dtype=added.data.dtype)
        return TensorHandle(product + added.data, added.dtype.scalar)

    torch.set_num_threads(1)
    InterpreterBuilder.create_dot = dot
