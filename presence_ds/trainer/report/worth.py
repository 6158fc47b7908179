"""What the weights and sources of a run were worth: from its records, or as its metrics say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from presence_ds.errors import ConfigError
from presence_ds.trainer.report.figures import WeightsWorth, Worth
from presence_ds.trainer.report.plain import plain
from presence_ds.trainer.report.recorded import find_recorded
from presence_ds.trainer.report.sample_figures import SourceFigures
from presence_ds.trainer.run_directory.layout import RunDirectory

MOST_RECORDS = 3_000_000  # that gains are told from: the last ones
IN_USE, UNIFORM = "in_use", "uniform"


def worth_of(
    run_dir: Path, last: dict[str, Any], sources: Sequence[SourceFigures]
) -> tuple[Worth | None, list[SourceFigures], list[str]]:
    """Gains, ``sources`` with their worth and verdict, and what is missing.

    Args:
        last: the last line of the metrics.
    """
    figures, reason = _from_records(run_dir)
    if figures is not None:
        worth = _worth(figures["gains"], figures["first_step"], figures["last_step"], "records", figures["noise_scale"])
        told = figures["sources"]
        known = [replace(source, **_verdict(told.get(source.name))) for source in sources]
        missing = (
            []
            if worth
            else ["What weights are worth cannot be told: too few steps, or samples without a common direction."]
        )
        return worth, known, missing
    gains = {
        name.removeprefix("gain/"): {
            "gain": value,
            "error": last.get(f"{name}_error"),
            "speedup": last.get(f"{name}_speedup"),
        }
        for name, value in last.items()
        if name.startswith("gain/") and not name.endswith(("_error", "_speedup"))
    }
    if gains:
        gains[UNIFORM] = {"gain": 1.0, "error": 0.0, "speedup": 1.0}
    from presence_ds.reweighting.value.worth import STEPS

    step = last.get("step", 0)
    worth = _worth(gains, max(1, step + 1 - STEPS), step, "metrics", last.get("noise_scale"))
    known = [replace(source, **_logged_verdict(last, source.name)) for source in sources]
    return worth, known, [] if worth else [f"What weights are worth is not known: {reason}."]


def _from_records(run_dir: Path) -> tuple[dict[str, Any] | None, str]:
    """As of `past_figures`, or the reason why not."""
    recorded = find_recorded(RunDirectory(run_dir).scores)
    if not recorded.groups:
        return None, "there are no score records"
    if recorded.missing:
        return None, "not all score records can be read"
    if "alignment" not in recorded.columns:
        return None, "there are no alignments in the records: train with presence.alignment true"
    from presence_ds.reweighting.value.gain import COMPARED
    from presence_ds.trainer.gain.gain import past_figures

    span = recorded.last + 1 - recorded.first
    first = recorded.last + 1 - max(1, min(span, span * MOST_RECORDS // recorded.rows))
    try:
        return past_figures(run_dir, dict(COMPARED), first), ""
    except ConfigError as error:
        return None, str(error).rstrip(".")


def _worth(gains: dict[str, Any], first: int, last: int, told_by: str, noise_scale: Any) -> Worth | None:
    if not gains:
        return None
    from presence_ds.trainer.callbacks.worth_report import WORDS

    weights = [
        WeightsWorth(name, WORDS.get(name, name), *(plain(one.get(key)) for key in ("gain", "error", "speedup")))
        for name, one in gains.items()
    ]
    weights.sort(key=lambda one: (one.name != IN_USE, -(one.gain or 0.0), one.name))
    return Worth(first, last, told_by, plain(noise_scale), weights)


def mean_worth(several: Sequence[Worth]) -> Worth:
    """The mean of several runs, of weights that all of them tell the gain of, with its standard error.

    The noise scale is the mean too, the steps are those of any, and there is no speedup.
    """
    if len(several) == 1:
        return several[0]
    by_name = [{one.name: one for one in worth.weights if one.gain is not None} for worth in several]
    means = []
    for name, first in by_name[0].items():
        own = [weights[name] for weights in by_name if name in weights]
        if len(own) == len(several):
            errors = [one.error for one in own if one.error is not None]
            error = math.hypot(*errors) / len(own) if len(errors) == len(own) else None
            means.append(WeightsWorth(name, first.words, fmean(one.gain or 0.0 for one in own), error, None))
    scales = [worth.noise_scale for worth in several if worth.noise_scale is not None]
    return Worth(
        min(worth.first_step for worth in several),
        max(worth.last_step for worth in several),
        several[0].told_by,
        fmean(scales) if scales else None,
        means,
    )


def _verdict(told: dict[str, Any] | None) -> dict[str, Any]:
    if told is None:
        return {}
    return {"worth": plain(told["ratio"]), "error": plain(told["error"]), "verdict": told["verdict"]}


def _logged_verdict(last: dict[str, Any], name: str) -> dict[str, Any]:
    from presence_ds.reweighting.value.sources import verdict

    ratio, error = last.get(f"source/{name}/worth"), last.get(f"source/{name}/worth_error")
    if ratio is None:
        return {}
    return {
        "worth": plain(ratio),
        "error": plain(error),
        "verdict": verdict(ratio, math.nan if error is None else error),
    }
