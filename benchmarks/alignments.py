"""How well alignments from sketches stand for exact ones, by the width of the sketches.

    python -m benchmarks.alignments [--text FILE ...] [--document docs/estimators.md]

A small model is trained on text a half of which is spoiled, and then takes optimizer steps' worth of held-out samples
of the same kinds without an update. Of every step the gradients of all samples give norms and alignments exactly, by
their inner products in float64; sketches of every width and seed give estimates, by the code that training uses.
"""

import logging
import time
import warnings
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import torch
from jsonargparse import auto_cli
from torch import Tensor

from benchmarks.document import table, write_section
from benchmarks.families import FAMILIES
from benchmarks.measures import pearson
from benchmarks.ranks import one_process
from benchmarks.text import load_texts, spoiled
from benchmarks.training import BATCH_SIZE, Batches, batches, train
from presence_ds.engine.scorer import Scorer
from presence_ds.influence import SampleLoss, ScoreSweep, SelfInfluence, select_parameters
from presence_ds.reweighting.alignment import leave_one_out
from presence_ds.reweighting.samples import Samples
from presence_ds.reweighting.value.gain import COMPARED, UNIFORM, Candidate, gains, quality_sums
from presence_ds.reweighting.value.window import estimate

WEIGHTS = (UNIFORM, "clip", "normalized", "paper_inverse")  # whose gains are compared
KEPT = 64  # samples of a rank in an optimizer step, for the memory that sketches take
CHUNK = 1 << 18  # numbers of a gradient that are widened to float64 at a time


class Sketch(NamedTuple):
    """projection_dim, and alignment_dim or None."""

    k: int
    m: int | None = None


class Study(NamedTuple):
    """Steps of samples, with their exact norms and alignments, and what sketches make of these.

    Attributes:
        samples: fields [steps, N].
        estimates: squared norms and alignments, [seeds, 2, steps, N] float64.
        widths: numbers per sample; of the gradient itself by None.
    """

    samples: Samples
    estimates: dict[Sketch, Tensor]
    widths: dict[Sketch | None, int]


@torch.no_grad()
def exact(gradients: Tensor) -> Tensor:
    """Squared norms and leave-one-out alignments of gradients [N, parameters], [2, N] float64."""
    products = sum((part.double() @ part.double().T for part in gradients.split(CHUNK, dim=1)), torch.zeros(()))
    norms = products.diag()
    return torch.stack([norms, (products.sum(1) - norms) / (len(norms) - 1)])


def measure(model: Any, data: Batches, sketches: list[Sketch], seeds: int) -> Study:
    """Exact and estimated figures of all steps of ``data``."""
    selected = select_parameters(model, "all")
    gradients = SelfInfluence(selected, None, 0, keeps_sketches=True)
    scorer = Scorer(model, gradients, SampleLoss(shifted=False), sketches=True)
    projections = {
        (k, seed): SelfInfluence(selected, k, seed, keeps_sketches=True)
        for k in sorted({sketch.k for sketch in sketches})
        for seed in range(seeds)
    }
    losses, targets, figures = [], [], []
    found: dict[tuple[Sketch, int], list[Tensor]] = {(sketch, seed): [] for sketch in sketches for seed in range(seeds)}
    for batch in data:
        scored = scorer.score(model, (), batch)
        assert scored.sketches is not None
        losses.append(scored.losses)
        targets.append(scored.targets)
        figures.append(exact(scored.sketches))
        for (k, seed), influence in projections.items():
            norms, whole = _swept(influence, scored.capture.terms)
            for sketch in (sketch for sketch in sketches if sketch.k == k):
                rows = whole.clone() if sketch.m is None else influence.joint(sketch.m)(whole)
                alignment, _ = leave_one_out([rows], [scored.targets > 0], None)
                found[sketch, seed].append(torch.stack([norms, alignment]).double())
    numbers = torch.stack(targets)
    norms, alignment = torch.stack(figures, dim=1)
    return Study(
        Samples(
            torch.stack(losses), numbers, torch.zeros_like(numbers), numbers > 0, scores=norms, alignment=alignment
        ),
        {s: torch.stack([torch.stack(found[s, seed], dim=1) for seed in range(seeds)]) for s in sketches},
        {s: s.m or projections[s.k, 0].width for s in sketches} | {None: gradients.width},
    )


@torch.no_grad()
def _swept(influence: SelfInfluence, terms: Any) -> tuple[Tensor, Tensor]:
    """Squared norms [N] and sketches [N, …]."""
    sweep = ScoreSweep(influence)
    for parameter, uses in terms.items():
        for number, term in enumerate(uses, start=1):
            sweep.add(parameter, term, number == len(uses))
    return sweep.scores(), sweep.sketches()


def gains_of(samples: Samples, norms: Tensor, alignment: Tensor) -> tuple[Tensor, Tensor]:
    """η of `WEIGHTS` by these norms and alignments [steps, N], and their errors over steps."""
    steps = replace(samples, scores=norms, alignment=alignment)
    noise, signal = norms.double(), alignment.double()  # the model stands still, and with it their unit
    weights = torch.stack([Candidate(COMPARED[name]).weights(steps, noise, signal) for name in WEIGHTS])
    return estimate(quality_sums(weights, noise, signal).transpose(0, 1), gains)


def study(
    text: list[Path] | None = None,
    family: str = "llama",
    dims: list[int] = [4, 8, 16, 32, 64],  # noqa: B006
    alignment_dims: list[int] = [64, 256, 1024, 4096, 16384],  # noqa: B006
    joint_at: int = 32,
    seeds: int = 10,
    steps: int = 40,
    samples: int = 32,
    length: int = 64,
    training_steps: int = 300,
    learning_rate: float = 1e-3,
    vocabulary: int = 4096,
    max_megabytes: float = 8.0,
    short: bool = False,
    document: Path | None = None,
) -> Study:
    """Compare widths of sketches on a small trained model.

    Args:
        text: jsonl files with a field "text", or plain text. null: docstrings of the installed Python packages.
        family: One of the decoders of `benchmarks.families.FAMILIES`.
        dims: Values of projection_dim, k.
        alignment_dims: Values of alignment_dim, m.
        joint_at: k with each of them.
        seeds: Projections per sketch.
        steps: Optimizer steps that are looked at.
        samples: In each of them.
        length: Tokens per sample.
        training_steps: Before, of 16 samples.
        learning_rate: Highest of AdamW.
        vocabulary: Tokens of the tokenizer, which is trained on the text.
        max_megabytes: Text that is read at most.
        short: Take minimal figures instead of those above, to see that everything runs.
        document: Markdown file to put the tables into. null: print them.
    """
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    if short:
        dims, alignment_dims, joint_at, seeds, steps, samples = [2, 16], [16, 1024], 16, 6, 6, 8
        length, training_steps, vocabulary, max_megabytes = 32, 10, 512, 0.5
    started = time.perf_counter()
    texts = load_texts(text, vocabulary, length, steps * samples, max_megabytes)
    texts = texts._replace(
        training=spoiled(texts.training, texts.vocabulary), held_out=spoiled(texts.held_out, texts.vocabulary)
    )
    model = FAMILIES[family].build(texts.vocabulary)
    train(model, FAMILIES[family], texts, training_steps, learning_rate)
    data = batches(texts.held_out, FAMILIES[family], texts.vocabulary, size=samples)
    sketches = [Sketch(k) for k in dims] + [Sketch(joint_at, m) for m in alignment_dims]
    with one_process():
        found = measure(model, data, sketches, seeds)
    minutes = (time.perf_counter() - started) / 60
    write_section(
        document,
        "alignments",
        f"Model: {family}, loss {found.samples.losses.mean():.2f} on the held-out samples after {training_steps} "
        f"steps of {BATCH_SIZE}. {steps} steps of {samples} samples of {length} tokens, {seeds} projections of each "
        f"width, float32; {minutes:.0f} minutes, CPU threads: {torch.get_num_threads()}.\n\n" + report(found),
    )
    return found


def report(found: Study) -> str:
    """The tables in markdown; rows are sketches."""
    norms, alignment = found.samples.scores, found.samples.alignment
    assert norms is not None
    assert alignment is not None
    size, unit, square = alignment.square().mean().sqrt(), alignment.abs().mean(), alignment.mean(1)
    values, errors = (figure[1:] for figure in gains_of(found.samples, norms, alignment))

    def label(sketch: Sketch | None) -> list[str]:
        k, m = ("gradient", None) if sketch is None else sketch
        return [str(k), "–" if m is None else f"{m:,}", f"{found.widths[sketch]:,}"]

    def with_error(by_seed: Tensor) -> str:
        return f"{by_seed.mean():+.1%} ± {by_seed.std() / len(by_seed) ** 0.5:.1%}"

    def of_alignments(sketch: Sketch) -> list[str]:
        estimates = found.estimates[sketch][:, 1]
        off, off_square = estimates - alignment, (estimates.mean(2) - square) / square.mean()
        spread = off.square().mean().sqrt()
        return [
            with_error(off.mean((1, 2)) / unit),
            f"{spread / size:.1%}",
            f"{spread / norms.mean():.2%}",
            f"{mean(pearson(one.flatten(), alignment.flatten()) for one in estimates):.3f}",
            with_error(off_square.mean(1)),
            f"{off_square.square().mean().sqrt():.1%}",
        ]

    def of_gains(sketch: Sketch) -> list[str]:
        off = torch.stack([gains_of(found.samples, *one)[0][1:] for one in found.estimates[sketch]]) - values
        return [f"{column.mean():+.3f} / {column.square().mean().sqrt():.3f}" for column in off.T]

    first = ["k", "m", "numbers"]
    figures = ["bias of a", "spread / rms a", "spread / mean n", "correlation", "bias of ‖G‖²", "spread of ‖G‖²"]
    kept = {sketch: f"{4 * KEPT * width / 1e6:,.2f} MB" for sketch, width in found.widths.items()}
    exactly = [f"η = {value:.3f} ± {error:.3f}" for value, error in zip(values, errors, strict=True)]
    tables = {
        "Alignments from sketches": table(
            [*first, f"{KEPT} samples", *figures],
            [
                *([*label(s), kept[s], *of_alignments(s)] for s in found.estimates),
                [*label(None), kept[None], *["–" for _ in figures]],
            ],
        ),
        "Gains from sketches: error of η, mean / root mean square over projections": table(
            [*first, *WEIGHTS[1:]],
            [*([*label(s), *of_gains(s)] for s in found.estimates), [*label(None), *exactly]],
        ),
    }
    return "\n\n".join(f"### {title}\n\n{body}" for title, body in tables.items())


if __name__ == "__main__":
    auto_cli(study)
