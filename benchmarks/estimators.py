"""How well projected self-influence, and that of a few layers, stands for the exact one over all layers.

    python -m benchmarks.estimators [--text FILE ...] [--families llama ...] [--document docs/estimators.md]

For every family of models a small one is scored twice on the same held-out samples, with its random initialisation and
after some training: exactly, parameter by parameter, and projected for every k and seed. All estimates of a batch come
from one capture by the code that training uses.
"""

import logging
import time
import warnings
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import torch
from jsonargparse import auto_cli
from torch import Tensor

from benchmarks.document import table, write_section
from benchmarks.families import FAMILIES, Family, parameter_sets
from benchmarks.measures import auc, pearson, relative_error, spearman
from benchmarks.text import load_texts
from benchmarks.training import BATCH_SIZE, Batches, batches, train
from presence_ds.engine.scorer import Scorer
from presence_ds.influence import SampleLoss, SelfInfluence, select_parameters


class Scores(NamedTuple):
    """Of N samples: losses [N]; exact SI [N] by set of parameters, "all" among them; projected SI [N] by (k, seed)."""

    losses: Tensor
    exact: dict[str, Tensor]
    projected: dict[tuple[int, int], Tensor]


class Study(NamedTuple):
    """One model: the samples' scores, and those of the same text with its words shuffled."""

    held_out: Scores
    shuffled: Scores


def score(model: Any, family: Family, data: Batches, dims: list[int], seeds: int) -> Scores:
    """Exact SI by set of parameters, and projected SI over all parameters for every k of ``dims`` and seed."""
    selected = select_parameters(model, "all")
    every = SelfInfluence(selected, None, 0)
    scorer = Scorer(model, every, SampleLoss(shifted=family.encoder_decoder))
    sets = {"all": set(selected)} | parameter_sets(model)
    alone = {parameter: SelfInfluence({parameter: name}, None, 0) for parameter, name in selected.items()}
    projections = {(k, seed): SelfInfluence(selected, k, seed) for k in dims for seed in range(seeds)}
    losses, exact, projected = [], [], []
    for batch in data:
        scored = scorer.score(model, (), batch)
        terms = scored.capture.terms
        parts = {parameter: influence(terms).double() for parameter, influence in alone.items()}
        losses.append(scored.losses)
        exact.append({name: sum(parts[p] for p in chosen) for name, chosen in sets.items()})
        projected.append({key: influence(terms).double() for key, influence in projections.items()})
    return Scores(torch.cat(losses), _joined(exact), _joined(projected))


def _joined(parts: list[dict[Any, Any]]) -> dict[Any, Tensor]:
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


def study(
    text: list[Path] | None = None,
    families: list[str] = list(FAMILIES),  # noqa: B006
    dims: list[int] = [2, 4, 8, 16, 32, 64, 128],  # noqa: B006
    seeds: int = 3,
    samples: int = 512,
    length: int = 128,
    steps: int = 500,
    learning_rate: float = 1e-3,
    vocabulary: int = 4096,
    max_megabytes: float = 8.0,
    short: bool = False,
    document: Path | None = None,
) -> dict[str, dict[str, Study]]:
    """Compare estimators of self-influence on small models, untrained and trained.

    Args:
        text: jsonl files with a field "text", or plain text. null: docstrings of the installed Python packages.
        families: Which of `benchmarks.families.FAMILIES`.
        dims: Sides k of the projected gradients.
        seeds: Projections per k; correlations are means over them, errors are pooled.
        samples: Held-out samples that are scored.
        length: Tokens per sample.
        steps: Training steps of 16 samples.
        learning_rate: Highest of AdamW.
        vocabulary: Tokens of the tokenizer, which is trained on the text.
        max_megabytes: Text that is read at most.
        short: Take minimal figures instead of those above, to see that everything runs.
        document: Markdown file to put the tables into. null: print them.
    """
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    if short:
        dims, seeds, samples, length, steps, vocabulary, max_megabytes = [2, 8, 32], 5, 64, 64, 20, 512, 0.5
    started = time.perf_counter()
    texts = load_texts(text, vocabulary, length, samples, max_megabytes)
    results: dict[str, dict[str, Study]] = {}
    sizes = []
    for name in families:
        family = FAMILIES[name]
        model = family.build(texts.vocabulary)
        held_out, shuffled = (batches(part, family, texts.vocabulary) for part in (texts.held_out, texts.shuffled))
        results[name] = {}
        for state in ("random", "trained"):
            if state == "trained":
                train(model, family, texts, steps, learning_rate)
            results[name][state] = Study(
                score(model, family, held_out, dims, seeds), score(model, family, shuffled, [], 0)
            )
        millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
        before, after = (results[name][state].held_out.losses.mean().item() for state in ("random", "trained"))
        sizes.append(f"{name} {millions:.1f} M parameters, held-out loss {before:.2f} → {after:.2f}")
    minutes = (time.perf_counter() - started) / 60
    write_section(
        document,
        "estimators",
        f"Models: {'; '.join(sizes)}. {samples} held-out samples of {length} tokens, {steps} training steps of "
        f"{BATCH_SIZE} samples, {seeds} projections per k, float32; {minutes:.0f} minutes, CPU threads: "
        f"{torch.get_num_threads()}.\n\n" + report(results),
    )
    return results


def report(results: dict[str, dict[str, Study]]) -> str:
    """The tables in markdown; columns are families, random and trained."""
    columns = [(f"{name} {state}", found) for name, states in results.items() for state, found in states.items()]
    titles = [title for title, _ in columns]
    first = columns[0][1].held_out
    dims = sorted({k for k, _ in first.projected})
    sets = [name for name in first.exact if name != "all"]

    def by_seed(scores: Scores, k: int) -> list[Tensor]:
        return [estimate for (dim, _), estimate in scores.projected.items() if dim == k]

    def rank_correlation(scores: Scores, k: int) -> str:
        return f"{mean(spearman(estimate, scores.exact['all']) for estimate in by_seed(scores, k)):.3f}"

    def error(scores: Scores, k: int) -> str:
        errors = torch.cat([relative_error(estimate, scores.exact["all"]) for estimate in by_seed(scores, k)])
        return f"{errors.median():.1%} / {errors.quantile(0.95):.1%}"

    def correlations(scores: Scores, name: str) -> str:
        part, full = scores.exact[name], scores.exact["all"]
        return f"{spearman(part, full):.2f} / {pearson(part.log(), full.log()):.2f}"

    def separation(found: Study, name: str) -> str:
        return f"{auc(found.held_out.exact[name], found.shuffled.exact[name]):.2f}"

    tables = [
        (
            "Spearman correlation of projected with exact self-influence over all parameters",
            table(["k", *titles], ([str(k), *(rank_correlation(s.held_out, k) for _, s in columns)] for k in dims)),
        ),
        (
            "Relative error of projected self-influence, median / 95th percentile",
            table(["k", *titles], ([str(k), *(error(s.held_out, k) for _, s in columns)] for k in dims)),
        ),
        (
            "Correlation of the self-influence of a set of parameters with that of all: Spearman / Pearson of the "
            "logarithms",
            table(["set", *titles], ([n, *(correlations(s.held_out, n) for _, s in columns)] for n in sets)),
        ),
        (
            "Share of the set in the self-influence of all, median over samples",
            table(
                ["set", *titles],
                (
                    [n, *(f"{(s.held_out.exact[n] / s.held_out.exact['all']).median():.1%}" for _, s in columns)]
                    for n in sets
                ),
            ),
        ),
        (
            "AUC of word-shuffled against clean text",
            table(
                ["score", *titles],
                [
                    ["loss", *(f"{auc(s.held_out.losses, s.shuffled.losses):.2f}" for _, s in columns)],
                    *([f"SI of {n}", *(separation(s, n) for _, s in columns)] for n in ("all", *sets)),
                ],
            ),
        ),
    ]
    return "\n\n".join(f"### {title}\n\n{body}" for title, body in tables)


if __name__ == "__main__":
    auto_cli(study)
