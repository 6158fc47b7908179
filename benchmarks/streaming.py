"""What it costs to read and tokenize text while training, without any training.

python -m benchmarks.streaming TEXT.jsonl --tokenizer FOLDER [--document docs/benchmarks.md]
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
from jsonargparse import auto_cli

from benchmarks.document import table, write_section
from presence_ds.data import (
    BatchStream,
    DataConfig,
    RankSamples,
    SourceConfig,
    Stream,
    StreamedBatches,
    StreamingConfig,
    TokenizerConfig,
    build_loader,
    load_tokenizer,
    open_corpus,
    prepare_corpus,
)
from presence_ds.data.samples.objective import Causal
from presence_ds.data.sources.finding import find_files

MICRO_BATCH_SIZE = 8
CPU_TICK = 1 / os.sysconf("SC_CLK_TCK")  # seconds; less CPU time is counted as none

# tokens_per_second, tokens_per_cpu_second over all processes, and first_batch and resumed in seconds
Clocked = dict[str, float]


def measure(text: Path, tokenizer: str, sequence_length: int, samples: int, workers: list[int]) -> dict[str, Clocked]:
    """Tokens per second of one rank, and how long its first batch takes, also of a resume at the end."""
    config = DataConfig(
        sources=[SourceConfig("text", str(text))],
        validation_fraction=0.0,
        sequence_length=sequence_length,
        tokenizer=TokenizerConfig(path=tokenizer),
    )
    found: dict[str, Clocked] = {}
    with tempfile.TemporaryDirectory() as folder:
        started, used = time.perf_counter(), _cpu_seconds()
        prepare_corpus(config, Path(folder, "corpus"))
        seconds, used = time.perf_counter() - started, max(_cpu_seconds() - used, CPU_TICK)
        corpus = open_corpus(Path(folder, "corpus"))
        tokens = sum(report.tokens for report in corpus.report.train.values())
        found["prepare"] = {"tokens_per_second": tokens / seconds, "tokens_per_cpu_second": tokens / used}

        def prepared() -> BatchStream:
            return BatchStream(build_loader(corpus.train, micro_batch_size=MICRO_BATCH_SIZE, rank=0, world_size=1))

        found["prepared"] = _clock(prepared, samples, sequence_length)
    config.streaming = StreamingConfig()
    config.validate()
    for count in workers:

        def streamed(count: int = count) -> StreamedBatches:
            stream = Stream(config, [find_files(source) for source in config.sources], load_tokenizer(config.tokenizer))
            return StreamedBatches(
                RankSamples(stream, 0, 1), Causal(sequence_length, None), MICRO_BATCH_SIZE, num_workers=count
            )

        found[f"streamed, {count} workers"] = _clock(streamed, samples, sequence_length)
    return found


def _clock(make: Callable[[], Any], samples: int, sequence_length: int) -> Clocked:
    batches: Iterator[dict[str, Any]] = make()
    started = time.perf_counter()
    next(batches)
    first_batch = time.perf_counter() - started
    for _ in range(samples // 2 // MICRO_BATCH_SIZE):  # until lanes are as far ahead as they ever are
        next(batches)
    first, used = time.perf_counter(), _cpu_seconds()
    for _ in range(samples // MICRO_BATCH_SIZE):
        next(batches)
    last, used = time.perf_counter(), max(_cpu_seconds() - used, CPU_TICK)
    resumed = make()
    resumed.load_state_dict(batches.state_dict())  # type: ignore[attr-defined]
    again = time.perf_counter()
    next(resumed)
    return {
        "tokens_per_second": samples * sequence_length / (last - first),
        "tokens_per_cpu_second": samples * sequence_length / used,
        "first_batch": first_batch,
        "resumed": time.perf_counter() - again,
    }


def _cpu_seconds() -> float:
    """CPU time of this process and its workers: unlike the clock's it does not depend on who else uses the machine."""
    process = psutil.Process()
    times = [found.cpu_times() for found in (process, *process.children(recursive=True))]
    return sum(found.user + found.system for found in times)


def report(found: dict[str, Clocked]) -> str:
    """The figures as a markdown table."""
    header = ["", "tokens/s of a rank", "tokens per CPU second", "first batch", "first batch of a resume"]
    rows = [
        [
            name,
            f"{clocked['tokens_per_second']:,.0f}",
            f"{clocked['tokens_per_cpu_second']:,.0f}",
            *(f"{clocked[column]:.2f} s" if column in clocked else "" for column in ("first_batch", "resumed")),
        ]
        for name, clocked in found.items()
    ]
    return table(header, rows)


def main(
    text: Path,
    tokenizer: str,
    sequence_length: int = 1024,
    samples: int = 4000,
    workers: list[int] = [0, 1, 2],  # noqa: B006
    document: Path | None = None,
) -> None:
    """Measure, and print a table or put it into a document.

    Args:
        text: A jsonl file.
        tokenizer: Folder of a tokenizer.
        sequence_length: Tokens of a sample.
        samples: Samples taken while the clock runs.
        workers: Numbers of processes that stream, beside this one.
        document: Where the table belongs.
    """
    write_section(document, "streaming", report(measure(text, tokenizer, sequence_length, samples, workers)))


if __name__ == "__main__":
    auto_cli(main)
