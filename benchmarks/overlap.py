"""How much of ZeRO's traffic hides behind computation, plain and with PRESENCE.

    python -m benchmarks.overlap [--document docs/scale.md]

A simulation (`benchmarks/communication/clock.py`) of models, networks and numbers of GPUs; nothing of it is measured.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil, log2
from pathlib import Path
from typing import Literal

from jsonargparse import auto_cli

from benchmarks.communication.clock import Channel, Clock, Layer, simulate, works
from benchmarks.communication.model import ScaleSetting
from benchmarks.document import table, write_section

VOCABULARY = 32_000
STRATEGIES: tuple[Literal["one_pass", "two_pass"] | None, ...] = (None, "one_pass", "two_pass")


@dataclass(frozen=True)
class Shape:
    """A Llama of ``blocks`` blocks of a width, with ``hidden`` numbers inside a feed-forward."""

    blocks: int
    width: int
    hidden: int

    def layers(self, tokens: int, length: int, flops: float) -> list[Layer]:
        """For a micro-batch of ``tokens`` in samples of ``length``, on a GPU that computes ``flops`` a second."""

        def matrix(rows: int, attention: float = 0.0) -> Layer:
            parameters = rows * self.width
            seconds = 2 * parameters * tokens / flops
            return Layer(parameters, seconds + attention, seconds + 2 * attention, seconds)

        # half of all pairs of positions, in two products; the weight gradients need nothing of it
        attention = 2 * length * self.width * tokens / flops
        square, wide = matrix(self.width), matrix(self.hidden)
        block = [square] * 3 + [matrix(self.width, attention)] + [wide] * 3
        return [Layer(VOCABULARY * self.width, 0.0, 0.0, 0.0), *block * self.blocks, matrix(VOCABULARY)]


@dataclass(frozen=True)
class Network:
    """How GPUs are connected.

    Attributes:
        machine: GPUs of one.
        inside: bytes per second that a GPU sends to another one of its machine.
        links: of a machine to others, each with a ring of its own, that passes through all of the machine's GPUs.
        link: bytes per second of one.
        message: seconds from machine to machine.
    """

    machine: int
    inside: float
    links: int
    link: float
    message: float

    def channel(self, ranks: int, efficiency: float) -> Channel:
        """For collectives of ``ranks``, whose small messages go along a tree."""
        rate = min(self.inside, self.links * self.link) if self.machine > 1 else self.links * self.link
        return Channel(ceil(log2(ranks)) * self.message, efficiency * rate)


MODELS = {
    "350 M": Shape(24, 1024, 2816),
    "1.3 B": Shape(24, 2048, 5504),
    "7 B": Shape(32, 4096, 11008),
}
NETWORKS = {
    "8 with NVLink, 400 Gb/s InfiniBand each": Network(8, 450e9, 8, 50e9, 5e-6),
    "1 with 400 Gb/s InfiniBand": Network(1, 50e9, 1, 50e9, 5e-6),
    "8 with NVLink, one 100 Gb/s Ethernet": Network(8, 450e9, 1, 12.5e9, 20e-6),
}


@dataclass(frozen=True)
class Training:
    """What all rows have in common.

    Args:
        tokens: Of a micro-batch of one GPU.
        length: Of a sample.
        flops: Of a GPU, as used: peak times utilisation.
        efficiency: Of networks.
        bucket: ``reduce_bucket_size``.
        prefetch: ``stage3_prefetch_bucket_size``.
    """

    tokens: int = 16_384
    length: int = 2048
    flops: float = 0.4 * 989e12
    efficiency: float = 0.8
    bucket: int = 50_000_000
    prefetch: int = 50_000_000


def overlap(training: Training = Training(), document: Path | None = None) -> None:
    """Make the table.

    Args:
        training: What is trained.
        document: Markdown file to put it into. null: print it.
    """
    write_section(document, "overlap", report(training))


def report(training: Training) -> str:
    """Seconds that a GPU waits in a step, in percent of a plain step's computation, as a table in markdown."""
    lines = []
    for machine, network in NETWORKS.items():
        for name, shape in MODELS.items():
            for ranks in (64, 512):
                waits = [
                    f"{step(shape, network, ranks, stage, strategy, training).exposed / plain:.1%}"
                    for stage in (2, 3)
                    for plain in [step(shape, network, ranks, stage, None, training).compute]
                    for strategy in STRATEGIES
                ]
                lines.append([machine, name, str(ranks), *waits, f"{tokens_needed(shape, network, ranks, training):,}"])
    names = [f"ZeRO-{stage} {strategy or 'plain'}" for stage in (2, 3) for strategy in STRATEGIES]
    return table(["machines of", "model", "GPUs", *names, "tokens for 1 %"], lines)


def step(
    shape: Shape,
    network: Network,
    ranks: int,
    stage: Literal[0, 1, 2, 3],
    strategy: Literal["one_pass", "two_pass"] | None,
    training: Training,
    accumulation_steps: int = 1,
) -> Clock:
    """A step on the clock."""
    layers = shape.layers(training.tokens, training.length, training.flops)
    setting = ScaleSetting(
        parameters=sum(layer.parameters for layer in layers),
        ranks=ranks,
        stage=stage,
        strategy=strategy,
        micro_batch_size=max(1, training.tokens // training.length),
        accumulation_steps=accumulation_steps,
        columns=5,
    )
    channel = network.channel(ranks, training.efficiency)
    return simulate(works(layers, setting), setting, channel, bucket=training.bucket, prefetch=training.prefetch)


def tokens_needed(shape: Shape, network: Network, ranks: int, training: Training, share: float = 0.01) -> int:
    """Least tokens of a micro-batch, in samples, with which one_pass waits no longer than plain at ZeRO-2 by ``share``.

    From there on it is so with any more: what the longer window leaves exposed gets less.
    """

    def costs_too_much(samples: int) -> bool:
        of = replace(training, tokens=samples * training.length)
        plain, one_pass = (step(shape, network, ranks, 2, strategy, of) for strategy in (None, "one_pass"))
        return one_pass.exposed - plain.exposed > share * plain.compute

    return training.length * _first_that_does_not(costs_too_much)


def _first_that_does_not(holds: Callable[[int], bool]) -> int:
    """The number after the last one for which ``holds``, of 1 to 64."""
    return max((number for number in range(1, 65) if holds(number)), default=0) + 1


if __name__ == "__main__":
    auto_cli(overlap, as_positional=False)
