"""What a run has ended at, as one row, and the file that rows are kept in."""

import json
import math
import subprocess
import sys
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from presence_ds.errors import AnomalyError, PresenceError
from study.arms import BASELINE
from study.plan import Cell, Plan
from study.probes import aucs
from study.texts import TEXTS

TENTH = "validation/tenth_"
WORTH = ("share", "norm", "alignment")
VERSIONS = ("presence-ds", "torch", "deepspeed", "transformers")


@dataclass(frozen=True)
class Row:
    """One run.

    Attributes:
        state: finished or diverged; a diverged one counts, with a loss above any other.
        seconds: that its steps took, without evaluations.
        loss: validation loss at the end, in nats: the mean over the clean sources, as they are in the mixture.
        losses: of every source.
        tenths: of the targets of all validation text, from those with the most frequent tokens, 1, to the rarest, 10.
        curve: ``loss`` at every evaluation, by step.
        noise_scale: the gradient noise scale, in samples, over the steps of ``gains``.
        effective_share: mean of 1/Σw² over the steps, as a share of the batch.
        gains: what other weights would have been worth, by name: gain and error. Of all steps after the warm-up.
        weights: mean weight of the samples of every source.
        worth: of every source its ``share`` of the samples, and the means of its samples' squared norms (``norm``) and
            alignments with the others of their step (``alignment``), in units of the means of all. As ``gains``.
        aucs: how often a sample of a noisy source has a higher figure of `study.probes` than a clean one, by source and
            figure. Of the second half of the steps, where weights are uniform.
    """

    key: str
    protocol: int
    cell: dict[str, Any]
    versions: dict[str, str]
    state: str
    seconds: float | None = None
    loss: float | None = None
    losses: dict[str, float] = field(default_factory=dict)
    tenths: dict[int, float] = field(default_factory=dict)
    curve: dict[int, float] = field(default_factory=dict)
    noise_scale: float | None = None
    effective_share: float | None = None
    gains: dict[str, tuple[float, float]] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    worth: dict[str, dict[str, float]] = field(default_factory=dict)
    aucs: dict[str, dict[str, float]] = field(default_factory=dict)


def make_row(key: str, plan: Plan, cell: Cell, run_dir: Path, status: int) -> Row:
    """The row of ``cell``, whose run in ``run_dir`` has ended with ``status``.

    Raises:
        PresenceError: it has failed, which tells nothing of its arm.
    """
    versions = {name: version(name) for name in VERSIONS}
    row = Row(key, plan.protocol, asdict(cell), versions, "diverged")
    if status == AnomalyError.status:
        return row
    if status:
        raise PresenceError(f"{cell} has failed with status {status}: {run_dir.with_suffix('.log')} says why")
    summary = _read(run_dir / "summary.json")
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    curve = {line["step"]: _clean(cell, line) for line in lines if "validation/loss" in line}
    loss = _clean(cell, summary["validation"])
    if not math.isfinite(loss):
        return row
    figures = gains(plan, run_dir) if "worth" in summary else {}
    stages, text = summary["stages"].values(), TEXTS[cell.text]
    return replace(
        row,
        state="finished",
        seconds=summary["tokens"] / summary["tokens_per_second"],
        loss=loss,
        losses=_losses(cell, summary["validation"]),
        tenths={
            int(name.removeprefix(TENTH)): loss
            for name, loss in summary["validation"].items()
            if name.startswith(TENTH) and loss is not None
        },
        curve=curve,
        noise_scale=figures.get("noise_scale"),
        effective_share=sum(stage["steps"] * stage["mean_effective_share"] for stage in stages) / summary["steps"],
        gains={name: (gain["gain"], gain["error"]) for name, gain in figures.get("gains", {}).items()},
        weights=_weights(list(stages)),
        worth={
            name: {figure: source[figure] for figure in WORTH} for name, source in figures.get("sources", {}).items()
        },
        aucs=aucs(run_dir, text.clean, text.noise, cell.steps // 2) if cell.arm == BASELINE else {},
    )


def gains(plan: Plan, run_dir: Path) -> dict[str, Any]:
    """What `presence gain` tells of all steps after the warm-up."""
    file = run_dir / "gain.json"
    options = ("--first_step", str(plan.warmup_steps + 1), "--json", str(file))
    command = [sys.executable, "-m", "presence_ds", "gain", str(run_dir), *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return _read(file)


def _weights(stages: list[dict[str, Any]]) -> dict[str, float]:
    """Of every source, over all stages of a run."""
    found = {}
    for name in sorted({name for stage in stages for name in stage["sources"]}):
        parts = [stage["sources"][name] for stage in stages if name in stage["sources"]]
        samples = sum(part["samples"] for part in parts)
        found[name] = sum(part["samples"] * part["mean_weight"] for part in parts) / samples
    return found


def _losses(cell: Cell, metrics: dict[str, Any]) -> dict[str, float]:
    """Of every source that is evaluated, from a line of metrics or a summary; NaN where it is not finite."""
    sources = [*TEXTS[cell.text].clean, *TEXTS[cell.text].noise]
    found = {name: metrics[f"validation/{name}/loss"] for name in sources if f"validation/{name}/loss" in metrics}
    return {name: math.nan if loss is None else loss for name, loss in found.items()}


def _clean(cell: Cell, metrics: dict[str, Any]) -> float:
    """Mean of the clean sources' losses, as they are in the mixture."""
    found, clean = _losses(cell, metrics), TEXTS[cell.text].clean
    return sum(found[name] * size for name, size in clean.items()) / sum(clean.values())


def _read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found
