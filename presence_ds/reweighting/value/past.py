"""What weights and sources were worth over a stretch of a past run, many steps at once."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from presence_ds.reweighting.config import ReweightingConfig
from presence_ds.reweighting.samples import Samples
from presence_ds.reweighting.value.gain import Candidate, in_units, quality_sums
from presence_ds.reweighting.value.noise_scale import NoiseScale
from presence_ds.reweighting.value.sources import SourceWorth, relative, source_sums, source_worth
from presence_ds.reweighting.value.unit import Unit
from presence_ds.reweighting.value.window import BLOCKS, estimate
from presence_ds.reweighting.value.worth import IN_USE, Gain, told_gains

CHUNK = 1 << 16  # samples that are weighed at once


class PastWorth:
    """As `Worth`, by the same functions, but over all of a stretch of steps, in `BLOCKS` blocks.

    A block is a twentieth of the stretch, so that its sums are all that is kept, however many steps there are.
    Calibrated weights begin with the stretch.
    """

    def __init__(
        self, weightings: dict[str, ReweightingConfig], first_step: int, last_step: int, *, with_reference: bool = False
    ) -> None:
        """``weightings`` are validated, the first uniform; none has a τ that changes.

        ``with_reference``: as of `Samples.usefulness`.
        """
        self._with_reference = with_reference
        self._candidates = {name: Candidate(config) for name, config in weightings.items()}
        self._learning = [place for place, config in enumerate(weightings.values()) if config.calibrates]
        self._others = [place for place in range(len(weightings)) if place not in self._learning]
        self._first, self._steps = first_step, last_step + 1 - first_step
        self._gains = torch.zeros(BLOCKS, len(weightings) + 1, 2, dtype=torch.float64)
        self._sources = torch.zeros(3, BLOCKS, 0, dtype=torch.float64)
        self._source_weights = torch.zeros(0, dtype=torch.float64)
        self._numbers = torch.zeros(BLOCKS, 2, dtype=torch.float64)
        self.noise_scale = NoiseScale(decay=1.0)
        self._unit = Unit()

    def observe(self, steps: Tensor, samples: Samples, weights: Tensor, sources: int) -> None:
        """Take in all samples of the next steps.

        Args:
            steps: [n] int64, ascending, none that an earlier call had.
            samples: [n] those that count.
            weights: [n] theirs, as trained with.
            sources: number of sources so far.
        """
        more = sources - len(self._source_weights)
        self._sources, self._source_weights = pad(self._sources, (0, more)), pad(self._source_weights, (0, more))
        found, numbers = steps.unique_consecutive(return_counts=True)
        ends = numbers.cumsum(0)
        first = done = 0
        while first < len(found):  # whole steps, at least one
            last = max(first + 1, int(torch.searchsorted(ends, done + CHUNK, right=True)))
            rows = slice(done, int(ends[last - 1]))
            chunk = Samples(**{name: value[rows] for name, value in vars(samples).items() if value is not None})
            self._take(found[first:last], numbers[first:last], chunk, weights[rows].double())
            first, done = last, rows.stop

    def _take(self, steps: Tensor, numbers: Tensor, samples: Samples, weights: Tensor) -> None:
        """As `observe`, of as many as are weighed at once; ``numbers`` of samples in each of the ``steps``."""
        candidates = list(self._candidates.values())
        sums = torch.zeros(len(steps), len(candidates) + 1, 2, dtype=torch.float64)
        moments = torch.zeros(len(steps), 2, dtype=torch.float64)  # ‖G‖² and mean n
        blocks = (steps - self._first) * BLOCKS // self._steps
        units = self._units(numbers, samples)
        for places, part, used in _alike(numbers, samples, weights, in_order=False):
            usefulness = part.usefulness(with_reference=self._with_reference)
            assert part.scores is not None
            assert part.alignment is not None
            noise, signal = in_units(part.scores, usefulness, units[places])
            for place in self._others:
                sums[places, place] = quality_sums(candidates[place].weights(part, noise, signal), noise, signal)
            used = used / used.mean(-1, keepdim=True)
            sums[places, -1] = quality_sums(used, noise, signal)
            moments[places] = torch.stack([x.double().mean(-1) for x in (part.alignment, part.scores)], dim=-1)
            self._add_sources(blocks[places], part.sources, noise, signal, used)
        for places, part, _ in _alike(numbers, samples, weights, in_order=True) if self._learning else ():
            usefulness = part.usefulness(with_reference=self._with_reference)
            assert part.scores is not None
            noise, signal = in_units(part.scores, usefulness, units[places])
            for place in self._learning:
                sums[places, place] = quality_sums(candidates[place].weights(part, noise, signal), noise, signal)

        self._gains.index_add_(0, blocks, sums)
        telling = numbers >= 2
        counts = torch.stack([numbers * telling, telling], dim=-1).double()
        self._numbers.index_add_(0, blocks, counts)
        for (square, total), unit in zip(moments[telling].tolist(), units[telling].tolist(), strict=True):
            if unit > 0:  # how many targets there were is not known
                self.noise_scale.update(square / unit, (total - square) / unit, 0.0)

    def _units(self, numbers: Tensor, samples: Samples) -> Tensor:
        """The `Unit` of every step, [steps] float64; 0 of those that tell nothing."""
        assert samples.scores is not None
        places = torch.arange(len(numbers)).repeat_interleave(numbers)
        means = torch.bincount(places, samples.scores.double(), len(numbers)) / numbers
        units = [
            self._unit.take(mean, number) if number > 1 else 0.0
            for mean, number in zip(means.tolist(), numbers.tolist(), strict=True)
        ]
        return torch.tensor(units, dtype=torch.float64)

    def _add_sources(self, blocks: Tensor, sources: Tensor, noise: Tensor, signal: Tensor, weights: Tensor) -> None:
        """Of steps in ``blocks`` ([steps]), samples [steps, n]."""
        number = len(self._source_weights)
        places = (blocks[:, None] * number + sources).flatten()
        found = source_sums(places, noise.flatten(), signal.flatten(), BLOCKS * number)
        self._sources += found.view_as(self._sources)
        self._source_weights += torch.bincount(sources.flatten(), weights.flatten(), number)

    @property
    def steps(self) -> int:
        """Number of steps that tell something: of two samples that count, or more."""
        return int(self._numbers[:, 1].sum())

    @property
    def samples(self) -> int:
        """Number of samples in those steps that count."""
        return int(self._numbers[:, 0].sum())

    @property
    def gains(self) -> dict[str, Gain]:
        """Of every weighting and of the weights in use; empty where nothing can be told (`Worth.gains`)."""
        kept = self._numbers[:, 1] > 0
        if not kept.any():
            return {}
        return told_gains(self._gains[kept], self._numbers[kept], [*self._candidates, IN_USE], self.noise_scale)

    @property
    def sources(self) -> dict[int, SourceWorth]:
        """Of every source that has occurred, by its id."""
        kept = self._numbers[:, 1] > 0
        return source_worth(*estimate(self._sources.transpose(0, 1)[kept], relative)) if kept.any() else {}

    @property
    def mean_weights(self) -> dict[int, float]:
        """Of the weights in use, in units of the mean over all samples, by source."""
        means = self._source_weights / self._sources[0].sum(0)
        return {source: mean for source, mean in enumerate(means.tolist()) if mean == mean}


def _alike(
    numbers: Tensor, samples: Samples, weights: Tensor, *, in_order: bool
) -> Iterator[tuple[Tensor, Samples, Tensor]]:
    """Steps that have as many samples, those with two or more: their places, samples and weights [steps, number].

    Args:
        numbers: [steps] of samples in each.
        samples: [n] of all, step after step.
        weights: [n].
        in_order: only neighbours together, so that steps come in their order.
    """
    starts = numbers.cumsum(0) - numbers
    if in_order:
        _, lengths = numbers.unique_consecutive(return_counts=True)
        groups: Sequence[Tensor] = torch.arange(len(numbers)).split(lengths.tolist())
    else:
        groups = [(numbers == number).nonzero()[:, 0] for number in numbers.unique()]
    for places in groups:
        number = int(numbers[places[0]])
        if number < 2:
            continue
        rows = None if len(groups) == 1 else starts[places, None] + torch.arange(number)

        def shaped(column: Tensor, rows: Tensor | None = rows, number: int = number) -> Tensor:
            return column.view(-1, number) if rows is None else column[rows]

        columns = {name: shaped(value) for name, value in vars(samples).items() if value is not None}
        yield places, replace(samples, **columns), shaped(weights)
