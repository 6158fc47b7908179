"""One optimizer step of one GPU on a clock: what it computes, and the collectives that hide behind it or do not.

A discrete-event simulation. Computation is one sequence of works, collectives another, on a channel that carries one at
a time, in the order in which they are asked for. A work waits for the parameters that it needs; a bucket of gradients
is reduced once it is full; an exchange, and the end of a micro-step, wait for the channel.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from benchmarks.communication.model import ScaleSetting, exchange_bytes
from benchmarks.communication.traffic import Kind, Traffic, sent_bytes


@dataclass(frozen=True)
class Layer:
    """Parameters of a module that is gathered by itself, and seconds of its three sweeps with a micro-batch."""

    parameters: int
    forward: float
    dgrad: float
    wgrad: float


@dataclass(frozen=True)
class Channel:
    """What carries collectives: seconds before the first byte, and bytes per second that a rank sends in a ring."""

    latency: float
    rate: float


@dataclass(frozen=True)
class Work:
    """A piece of computation.

    Attributes:
        seconds: it takes.
        gathers: parameters that it needs whole, and that may be gathered before its turn.
        gradients: parameters whose gradients it ends with.
        exchanges: a collective that starts when it is its turn, and that it waits for.
        drains: whether it waits for all collectives before it.
    """

    seconds: float = 0.0
    gathers: int = 0
    gradients: int = 0
    exchanges: tuple[Kind, int] | None = None
    drains: bool = False


@dataclass
class Clock:
    """A step that was simulated.

    Attributes:
        compute: seconds of computation.
        end: seconds until computation and collectives are over.
        traffic: payloads by kind, as `step_traffic` tells them.
    """

    compute: float = 0.0
    end: float = 0.0
    traffic: dict[Kind, Traffic] = field(default_factory=dict)

    @property
    def exposed(self) -> float:
        """Seconds in which the GPU waits for collectives."""
        return self.end - self.compute


def works(layers: Sequence[Layer], setting: ScaleSetting) -> list[Work]:
    """The computation of an optimizer step, in its order; ``layers`` are in that of the forward pass."""
    whole = setting.stage == 3  # parameters have to be gathered
    backwards = layers[::-1]
    forward = [Work(layer.forward, gathers=whole * layer.parameters) for layer in layers]
    dgrad = [Work(layer.dgrad, gathers=whole * layer.parameters) for layer in backwards]
    wgrad = [Work(layer.wgrad, gradients=layer.parameters) for layer in backwards]
    both = [
        replace(work, seconds=layer.dgrad + layer.wgrad, gradients=layer.parameters)
        for work, layer in zip(dgrad, backwards, strict=True)
    ]
    exchange = Work(exchanges=("all-gather", exchange_bytes(setting)))
    steps = setting.accumulation_steps
    if setting.strategy is None:
        micro_steps = [[*forward, *both]] * steps
    elif setting.strategy == "one_pass":
        micro_steps = [[*forward, *dgrad, *[exchange] * (step == steps - 1), *wgrad] for step in range(steps)]
    else:
        micro_steps = [[*forward, *dgrad]] * steps + [[exchange]] + [[*forward, *both]] * steps
    found = [[*part, Work(drains=True)] for part in micro_steps]
    if setting.stage < 2:  # gradients are reduced when all have been accumulated
        found[:-1] = [[replace(work, gradients=0) for work in part] for part in found[:-1]]
    if setting.stage in (1, 2):
        parameters = sum(layer.parameters for layer in layers)
        found.append([Work(exchanges=("all-gather", parameters * setting.bytes_per_number))])
    return [work for part in found for work in part]


def simulate(sequence: Iterable[Work], setting: ScaleSetting, channel: Channel, *, bucket: int, prefetch: int) -> Clock:
    """Run the clock.

    Args:
        sequence: what `works` gives.
        bucket: gradients that are reduced together, at least (``reduce_bucket_size``).
        prefetch: parameters up to which more are gathered ahead (``stage3_prefetch_bucket_size``).
    """
    clock, free, waiting, sequence = Clock(), 0.0, 0, [*sequence]
    arrived: dict[int, float] = {}  # when the parameters of a work are whole

    def send(kind: Kind, payload: int, at: float) -> float:
        nonlocal free
        found = clock.traffic.setdefault(kind, Traffic())
        found.calls, found.payload = found.calls + 1, found.payload + payload
        free = max(free, at) + channel.latency + sent_bytes(kind, payload, setting.ranks) / channel.rate
        return free

    ahead = held = (
        0  # the work whose parameters are asked for next; those that are whole or on their way for later works
    )
    for index, work in enumerate(sequence):
        if ahead > index:
            held -= work.gathers
        while ahead < len(sequence) and (ahead <= index or held < prefetch):
            if size := sequence[ahead].gathers:
                arrived[ahead] = send("all-gather", size * setting.bytes_per_number, clock.end)
                held += size if ahead > index else 0
            ahead += 1
        start = max(clock.end, arrived.get(index, 0.0))
        if work.exchanges is not None:
            start = send(*work.exchanges, at=start)
        clock.end, clock.compute = start + work.seconds, clock.compute + work.seconds
        waiting += work.gradients
        if waiting >= bucket or (work.drains and waiting):
            kind: Kind = "reduce-scatter" if setting.stage == 3 else "all-reduce"
            send(kind, waiting * setting.bytes_per_number, clock.end)
            waiting = 0
        if work.drains:
            clock.end = max(clock.end, free)
    return clock


def exposed_of_equal_layers(layers: int, collective: float, window: float) -> float:
    """Seconds that the collectives of equal layers are not hidden, by formula.

    Each of ``layers`` has a collective of ``collective`` seconds, and ``window`` seconds of computation behind which
    those of the layers before it can hide. Either the channel keeps up and the last one stands alone, or it is busy
    from the first to the last.
    """
    return max(collective, layers * collective - (layers - 1) * window)
