"""Corpora of what a filter keeps of another one: the paper's Sequential (its equations 4 and 5), and its reverse."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from presence_ds.errors import DataError
from study.ranks import run_rank

SCORING_RATE, SCORING_STEPS = 0.01, 12  # of the scoring model, whose rate rises over all of its steps


def keep(arguments: Sequence[str], fields: dict[str, Any], work: Path, target: Path, core: int) -> None:
    """Make the corpus ``target`` of what `presence filter` keeps with ``arguments`` of the one that a recipe reads.

    Its samples are scored by a model that the recipe ``fields`` trains: all on ``core``, and in the empty ``work``.

    Raises:
        DataError: a step has failed.
    """
    recipe, model, scores = work / "recipe.yaml", work / "model", work / "scores"
    changed = {
        "lr_schedule": {"kind": "constant", "warmup_steps": SCORING_STEPS},
        "evaluation": {"every_steps": None},
        "checkpoint": {"at_end": True},
    }
    recipe.write_text(yaml.safe_dump(fields | changed), encoding="utf-8")
    log = sys.stderr.fileno()
    if (
        run_rank(["train", recipe, "--run_dir", model], core, log)
        or run_rank(["score", recipe, scores, "--checkpoint", model, "--run_dir", work / "scoring"], core, log)
        or subprocess.run(
            [sys.executable, "-m", "presence_ds", "filter", scores, target, *arguments], stdout=log
        ).returncode
    ):
        raise DataError(f"{target.name} cannot be filtered out of {fields['data']['prepared']}: above is why")
