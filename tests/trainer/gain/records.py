"""Samples of made-up steps, as training sees them and as it records them."""

from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from presence_ds.reweighting.samples import Samples
from presence_ds.trainer.callbacks.score_schema import SCHEMA
from presence_ds.trainer.gain.records import FEATURES
from presence_ds.trainer.run_directory.layout import score_file_name

SOURCES = ["web", "wiki", "noise"]
PER_RANK = 12  # samples of a rank in a step
STEPS = 200  # as long as the window of a run in progress


class Step(NamedTuple):
    """All samples of a step, and the weights they were trained with, [n] float32."""

    samples: Samples
    weights: Tensor


def make_step(number: int, left_out: int = 0) -> Step:
    """Samples of two ranks, those of ``left_out`` (a random choice) not counted; norms fall from step to step."""
    generator = torch.Generator().manual_seed(number)
    count = 2 * PER_RANK
    sources = torch.randint(0, 3 - number % 3, (count,), generator=generator)  # not all of them in every step
    scores = (torch.randn(count, generator=generator) - number / 50).exp()
    scores[3] = 0.0
    useful = 0.1 + 0.1 * (sources < 2) + 0.2 * torch.randn(count, generator=generator)
    counted = torch.ones(count, dtype=torch.bool)
    counted[torch.randperm(count, generator=generator)[:left_out]] = False
    weights = torch.rand(count, generator=generator) * counted
    samples = Samples(
        losses=4 + torch.randn(count, generator=generator),
        targets=torch.ones(count, dtype=torch.int64),
        sources=sources,
        counted=counted,
        scores=scores,
        alignment=scores**0.8 * useful * counted,
        reference_alignment=scores**0.7 * useful.flip(0),
        vocabulary_scores=scores * (0.2 + 0.1 * useful).clamp(0, 1),
        momentum_alignment=scores * useful.roll(1),
    )
    return Step(samples, weights / weights.sum())


def left_out_columns(step: Step, number: int) -> dict[str, Tensor]:
    """Losses, scores and targets as they are recorded of samples that did not count, each for one of three reasons."""
    losses, scores = step.samples.losses.clone(), step.samples.scores
    assert scores is not None
    scores, has_targets = scores.clone(), torch.ones(len(losses), dtype=torch.bool)
    for place in (~step.samples.counted).nonzero()[:, 0].tolist():
        reason = (place + number) % 3
        if reason == 0:
            losses[place] = scores[place] = 0.0
            has_targets[place] = False
        elif reason == 1:
            losses[place] = torch.nan
        else:  # its sketch was not finite, which is not recorded
            scores[place] = 1.0
    return {"loss": losses, "self_influence": scores, "has_targets": has_targets}


def table(step: Step, number: int, rank: int, *, features: bool) -> pa.Table:
    """What a rank records of a step, with or without what needs features of their own."""
    own = slice(rank * PER_RANK, (rank + 1) * PER_RANK)
    names = SOURCES[::-1] if rank else SOURCES  # files need not number sources alike
    ids = [names.index(SOURCES[source]) for source in step.samples.sources[own].tolist()]
    assert step.samples.alignment is not None
    assert step.samples.reference_alignment is not None
    assert step.samples.vocabulary_scores is not None
    assert step.samples.momentum_alignment is not None
    columns: dict[str, Any] = {
        "step": [number] * PER_RANK,
        "micro_step": [0] * PER_RANK,
        "rank": [rank] * PER_RANK,
        "position": range(PER_RANK),
        "source": pa.DictionaryArray.from_arrays(pa.array(ids, pa.int16()), names),
        "document_id": ["d"] * PER_RANK,
        "offset": [0] * PER_RANK,
        "alignment": step.samples.alignment[own].numpy(),
        "reference_alignment": step.samples.reference_alignment[own].numpy(),
        "vocabulary_influence": step.samples.vocabulary_scores[own].numpy(),
        "momentum_alignment": step.samples.momentum_alignment[own].numpy(),
        "weight": step.weights[own].numpy(),
    }
    if not features:
        columns |= {name: [None] * PER_RANK for name in FEATURES.values()}
    columns |= {name: column[own].numpy() for name, column in left_out_columns(step, number).items()}
    return pa.table({name: columns[name] for name in SCHEMA.names}, schema=SCHEMA)


def write_run(run_dir: Path, steps: dict[int, Step], alignment_with: str = "step", *, features_from: int = 1) -> Path:
    """A run directory with the records of ``steps``: a file for each of two ranks, in row groups of no order.

    What needs features of its own is recorded from step ``features_from`` on.
    """
    per_group = 7
    (run_dir / "scores").mkdir(parents=True)
    (run_dir / "recipe.yaml").write_text(f"presence: {{alignment_with: {alignment_with}}}\n")
    numbers = list(steps)
    groups = [numbers[start : start + per_group] for start in range(0, len(numbers), per_group)]
    for rank in (0, 1):
        path = run_dir / "scores" / score_file_name((rank, rank), numbers[0], numbers[-1])
        with pq.ParquetWriter(path, SCHEMA) as writer:
            for group in groups[1::2] + groups[::-2] if len(groups) % 2 else groups[::-1]:
                rows = pa.concat_tables(
                    [table(steps[number], number, rank, features=number >= features_from) for number in group]
                )
                writer.write_table(rows.unify_dictionaries())
    return run_dir
