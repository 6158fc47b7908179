"""A report of made-up figures, as large as one of real runs."""

import math
import random
from collections.abc import Sequence

from presence_ds.trainer.report.figures import (
    Comparison,
    Cost,
    Curve,
    Difference,
    Event,
    Group,
    Report,
    RunFigures,
    Sentence,
    WeightsWorth,
    Worth,
)
from presence_ds.trainer.report.sample_figures import (
    Extreme,
    MovedSample,
    MovedStep,
    Plane,
    Quantiles,
    SourceFigures,
)

STEPS = 1200
SOURCES = ["web", "wiki", "permuted", "boilerplate"]
BINS = 60


def make_report(groups: Sequence[str] = ("calibrated", "uniform"), seeds: int = 2, **texts: str) -> Report:
    """Runs of ``seeds`` seeds in each of ``groups``.

    Args:
        texts: that stand in the places of these: source, document, text, label, words.
    """
    rng = random.Random(0)
    runs = [_run(rng, place, group, seed, texts) for place, group in enumerate(groups) for seed in range(seeds)]
    made = []
    for place, name in enumerate(groups):
        members = [number for number, run in enumerate(runs) if run.group == place]
        one = runs[members[0]]
        made.append(Group(name, members, one.weights, one.curves, one.validation))
    comparisons = []
    if len(groups) > 1:
        words = texts.get("words", "calibrated ended 0.054 nats below uniform (95 % interval 0.021 to 0.087).")
        comparisons = [
            Comparison(0, 1, "validation/loss", [0, 1], [-0.05, -0.058], -0.054, -0.087, -0.021, 0.01, "better", words)
        ]
    return Report(
        made="2026-01-02T03:04:05+00:00",
        version="0.1.0",
        summary=[
            Sentence(texts.get("words", "Four runs of 1,200 steps have finished."), "told"),
            Sentence("The weights in use were worth 1.10 ± 0.02 times the batch.", "good", "worth", 0),
            Sentence("The loss spiked twice; look at what moved these steps.", "look", "moved", 0),
        ],
        runs=runs,
        groups=made,
        comparisons=comparisons,
        configuration_differences=[
            Difference("presence.preset", [run.weights for run in runs]),
            Difference("training.seed", [run.seed for run in runs], is_seed=True),
        ],
        missing=["No learning rate is logged."],
    )


def _run(rng: random.Random, place: int, group: str, seed: int, texts: dict[str, str]) -> RunFigures:
    label = texts.get("label", "{group}, seed {seed}").format(group=group, seed=seed)
    step = [STEPS * (bin + 1) // BINS for bin in range(BINS)]

    def curve(value: float, slope: float) -> Curve:
        means = [value + slope * math.exp(-3 * one / STEPS) + 0.02 * rng.random() + 0.05 * place for one in step]
        return Curve(
            step=step,
            tokens=[one * 4096 for one in step],
            hours=[one * 0.0005 for one in step],
            mean=means,
            low=[mean - 0.05 for mean in means],
            high=[mean + 0.05 for mean in means],
        )

    sources = [texts.get("source", "{name}").format(name=name) for name in SOURCES]
    return RunFigures(
        run_dir=f"runs/{label}",
        label=label,
        group=place,
        seed=seed,
        weights=group,
        state="finished",
        told="0:12:34 ago",
        step=STEPS,
        total_steps=STEPS,
        tokens=STEPS * 4096,
        hours=0.6,
        samples_per_step=32,
        missing=["The corpus is gone: there are no texts of extreme samples."],
        curves={
            "loss": curve(5.7, 3.0),
            "gradient_norm": curve(0.3, 0.5),
            "effective_share": curve(0.9, 0.05),
            "gain/in_use": curve(1.1, -0.1),
            "noise_scale": curve(120.0, -90.0),
            "throughput(tokens/s)": curve(2300.0, 10.0),
        },
        validation={"": curve(5.75, 2.0), sources[0]: curve(5.7, 2.0), sources[1]: curve(5.6, 2.1)},
        validation_loss=5.75,
        events=[Event(400, "loss_spikes", texts.get("words", "loss 9.2, 5 deviations above what was expected"))],
        counts={"loss_spikes": 1, "gradient_spikes": 0, "skipped_steps": 0},
        sources=[
            SourceFigures(name, 9600, share, share * 0.9, share * update, update, 2.5, 0.9, 5.9, 1.0, 0.05, verdict)
            for name, share, update, verdict in zip(
                sources, (0.5, 0.3, 0.12, 0.08), (0.9, 1.0, 0.6, 2.4), ("keep", "keep", "doubtful", "drop"), strict=True
            )
        ],
        records=38400,
        records_share=1.0,
        self_influence=_quantiles(0.4),
        weight=_quantiles(1.0),
        plane=_plane(rng),
        moved=[
            _moved(rng, 400, "spike", sources, texts),
            _moved(rng, 700, "high loss", sources, texts),
            _moved(rng, 1000, "spread", sources, texts),
        ],
        extremes=[
            Extreme(sources[3], "boilerplate.jsonl:7", 3, 3, 9.5, 6.1, 0.2, 7.7, [10, 410, 810], "terms and conditions")
        ],
        worth=Worth(
            60,
            STEPS,
            "records",
            120.0,
            [
                WeightsWorth("in_use", "the weights in use", 1.1, 0.02, 1.08),
                WeightsWorth("clip", "gradients clipped at the median norm", 1.05, 0.02, 1.04),
                WeightsWorth("paper_inverse", "the paper's second, high scores down", 0.73, 0.04, 0.78),
            ],
        ),
        cost=Cost(2300.0, 1.7, 0.6, 0.002, None, 0.05, 0.1, 1.3),
        configuration={"optimizer.lr": 0.006, "data.sources": [{"name": name} for name in sources]},
    )


def _quantiles(middle: float) -> Quantiles:
    step = list(range(60, STEPS + 1, 60))
    return Quantiles(step, *[[middle + shift for _ in step] for shift in (-0.4, -0.2, 0.0, 0.2, 0.5)])


def _plane(rng: random.Random) -> Plane:
    norms = [-1 + 0.1 * edge for edge in range(21)]
    heights = [-0.2 + 0.025 * edge for edge in range(17)]
    counts = [[round(600 * math.exp(-((x - 9) ** 2) / 20 - (y - 10) ** 2 / 8)) for x in range(20)] for y in range(16)]
    return Plane(
        norms,
        heights,
        0.1,
        counts,
        [[1.4 - 0.06 * x if count else None for x, count in enumerate(row)] for row in counts],
        [[0.2 * (y - 8) - 0.02 * x if count else None for x, count in enumerate(row)] for y, row in enumerate(counts)],
        [sum(column) for column in zip(*counts, strict=True)],
        [1.4 - 0.06 * x for x in range(20)],
        [1.5 - 0.07 * x + 0.05 * rng.random() for x in range(20)],
        [0.05] * 20,
    )


def _moved(rng: random.Random, step: int, why: str, sources: list[str], texts: dict[str, str]) -> MovedStep:
    text = texts.get("text", "Step {step}: the quick brown fox jumps over the lazy dog. ") * 4
    shares = sorted((rng.random() for _ in range(4)), reverse=True)
    return MovedStep(
        step,
        8.1,
        why,
        texts.get("words", f"Chosen for: {why}."),
        32,
        "alignment",
        [
            MovedSample(
                sources[place],
                texts.get("document", "web.jsonl:{place}").format(place=place),
                17,
                share / sum(shares) if place < 3 else -0.08,
                1.2,
                2.5,
                0.1,
                6.6,
                text.replace("{step}", str(step)),
            )
            for place, share in enumerate(shares)
        ],
    )
