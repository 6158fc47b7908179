"""What a filter by self-influence is worth: training on the whole corpus, on the filtered one, and on its reverse.

python -m benchmarks.sequential WORK [--keep 0.8] [--seeds '[0,1,2]'] [--document docs/sequential.md]

Every seed has a scoring model, scores and filters of its own; its trainings begin with the same parameters. The corpus
is the same, and all trainings are as long as the recipe says. It goes on where it was stopped.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jsonargparse import auto_cli

from benchmarks.document import table, write_section
from benchmarks.ranks import ROOT

ARMS = {"corpus": "the whole corpus", "lowest": "Sequential: the lowest scores", "highest": "the highest: its reverse"}
Presence = Callable[..., None]


def command(*arguments: Any) -> None:
    """``presence ARGUMENTS`` in a process of its own."""
    subprocess.run([sys.executable, "-m", "presence_ds", *map(str, arguments)], check=True, stdout=sys.stderr)


def rising(steps: int) -> tuple[Any, ...]:
    """Options of a training that is as long as its warm-up, whatever the recipe's schedule."""
    kind = ("--lr_schedule.kind", "constant", "--lr_schedule.decay_steps", "null")
    return (*kind, "--lr_schedule.warmup_steps", steps)


def one_seed(
    presence: Presence, recipe: Path, work: Path, seed: int, keep: float, scoring_steps: int, noisy: str
) -> dict[str, Any]:
    """Score ``work``/corpus, filter it both ways, and train every arm.

    Returns:
        ``aucs`` of the noisy source beside each of the others, ``noise`` by arm as a share of its samples, and
        ``losses`` by arm: the validation loss at the end.
    """
    folder, corpus = work / f"seed{seed}", work / "corpus"
    seeds = ("--training.seed", seed, "--data.seed", seed)
    scoring_model = folder / f"scoring_model-{scoring_steps}"

    def train(corpus: Path, run_dir: Path, *options: Any) -> dict[str, Any]:
        summary = run_dir / "summary.json"
        if not summary.exists():  # a run that has finished does not go on
            presence("train", recipe, "--data.prepared", corpus, *seeds, *options, "--run_dir", run_dir)
        found: dict[str, Any] = json.loads(summary.read_text(encoding="utf-8"))
        return found

    train(corpus, scoring_model, "--training.steps", scoring_steps, *rising(scoring_steps))
    scores = folder / "scores"
    presence("score", recipe, scores, "--data.prepared", corpus, *seeds, "--checkpoint", scoring_model)
    presence("filter", scores, folder / "lowest", "--keep", keep)
    presence("filter", scores, folder / "highest", "--keep", keep, "--reverse")
    places = {arm: work / "corpus" if arm == "corpus" else folder / arm for arm in ARMS}
    aucs = {}
    for clean in set(samples(corpus)) - {noisy}:
        figures = folder / f"probe-{clean}.json"
        presence("probe", scores, "--clean", clean, "--noisy", noisy, "--json", figures)
        aucs[clean] = json.loads(figures.read_text(encoding="utf-8"))["auc"]["estimate"]
    losses = {arm: train(place, folder / f"training-{arm}")["validation_loss"] for arm, place in places.items()}
    noise = {arm: (found := samples(place)).get(noisy, 0) / sum(found.values()) for arm, place in places.items()}
    return {"aucs": aucs, "noise": noise, "losses": losses}


def samples(corpus: Path) -> dict[str, int]:
    """Number of training samples by source of a prepared corpus."""
    train = json.loads((corpus / "corpus.json").read_text(encoding="utf-8"))["report"]["train"]
    return {source: counts["samples"] for source, counts in train.items()}


def report(found: dict[int, dict[str, Any]], noisy: str) -> list[str]:
    """The lines of a table of the arms, and one of how well the scores told the noisy source from the others."""
    rows = []
    for arm, name in ARMS.items():
        losses = [one["losses"][arm] for one in found.values()]
        noise = statistics.mean(one["noise"][arm] for one in found.values())
        beside = [one["losses"][arm] - one["losses"]["corpus"] for one in found.values()]
        rows.append([name, f"{noise:.1%}", *(f"{loss:.3f}" for loss in losses), _mean(beside) if any(beside) else ""])
    header = ["trained on", f"of it {noisy}", *(f"seed {seed}" for seed in found), "beside the whole"]
    aucs = [
        f"{clean} {_mean([one['aucs'][clean] for one in found.values()])}"
        for clean in sorted(next(iter(found.values()))["aucs"])
    ]
    return [table(header, rows), "", f"AUC of the scores of {noisy} beside those of {', of '.join(aucs)}."]


def _mean(values: list[float]) -> str:
    """Mean and its standard error."""
    error = f" ± {statistics.stdev(values) / len(values) ** 0.5:.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{error}"


def sequential(
    work: Path,
    recipe: Path = ROOT / "recipes" / "sequential" / "sequential.yaml",
    keep: float = 0.8,
    scoring_steps: int = 10,
    seeds: list[int] = [0, 1, 2],  # noqa: B006
    noisy: str = "permuted",
    document: Path | None = None,
) -> None:
    """Train every arm with every seed, and print what they end at.

    Args:
        work: Folder for corpora, scores and runs.
        recipe: Text, model and training.
        keep: Share of the samples that a filter keeps.
        scoring_steps: Optimizer steps of the scoring model, over all of which its rate rises.
        seeds: Of parameters and order.
        noisy: Source that a filter should find.
        document: Page to put the table in.
    """
    command("prepare", recipe, work / "corpus")
    found = {seed: one_seed(command, recipe, work, seed, keep, scoring_steps, noisy) for seed in seeds}
    write_section(document, "sequential", "\n".join(report(found, noisy)))


if __name__ == "__main__":
    auto_cli(sequential)
