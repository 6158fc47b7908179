"""Time of the per-sample loss and of its gradient, in turn with the loss of transformers.

    python -m benchmarks.loss [--document docs/benchmarks.md]

The allocator decides much on a CPU: with ``MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=1099511627776`` before the command
freed memory is kept, as a GPU's allocator keeps it.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from jsonargparse import auto_cli
from torch import Tensor
from transformers.loss.loss_utils import ForCausalLMLoss

from benchmarks.document import table, write_section
from presence_ds.influence import SampleLoss

SHAPES = [(8, 128, 4096), (4, 512, 16384), (2, 2048, 32000)]  # samples, positions, vocabulary


def compare(
    shapes: list[tuple[int, int, int]] = SHAPES,
    repeats: int = 15,
    threads: int = 1,
    document: Path | None = None,
) -> None:
    """Measure, and make a table.

    Args:
        shapes: Samples, positions and vocabulary of the logits.
        repeats: Forwards and backwards of each loss.
        threads: CPU threads.
        document: Markdown file to put the table into. null: print it.
    """
    torch.set_num_threads(threads)
    lines = []
    for dtype in (torch.float32, torch.bfloat16):
        for shape in shapes:
            theirs, ours = measure(shape, dtype, repeats)
            lines.append(
                [str(dtype).removeprefix("torch."), " × ".join(map(str, shape))]
                + [f"{forward * 1e3:.1f} + {backward * 1e3:.1f} ms" for forward, backward in (theirs, ours)]
                + [f"{sum(ours) / sum(theirs):.2f}"]
            )
    header = ["dtype", "samples × T × vocabulary", "transformers", "SampleLoss", "ratio"]
    write_section(document, "loss", f"Forward and backward, medians\n\n{table(header, lines)}")


def measure(
    shape: tuple[int, int, int], dtype: torch.dtype, repeats: int
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Median seconds of forward and backward of the loss of transformers, and of `SampleLoss` on the same logits."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    logits = torch.randn(shape, device=device).to(dtype).requires_grad_()
    labels = torch.randint(shape[-1], shape[:2], device=device)
    sample_loss = SampleLoss()
    losses: list[Callable[[], Tensor]] = [
        lambda: ForCausalLMLoss(logits, labels, shape[-1]),
        lambda: sample_loss(logits, labels).mean(),
    ]
    found: list[list[tuple[float, float]]] = [[], []]
    for number in range(repeats + 1):
        for loss, seconds in zip(losses, found, strict=True):
            start = _now()
            value = loss()
            middle = _now()
            value.backward()
            end = _now()
            logits.grad = None
            if number > 0:
                seconds.append((middle - start, end - middle))
    theirs, ours = [tuple(map(statistics.median, zip(*seconds, strict=True))) for seconds in found]
    return (theirs[0], theirs[1]), (ours[0], ours[1])


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    auto_cli(compare, as_positional=False)
