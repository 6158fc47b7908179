"""The recipe in a checkpoint beside the present one: what has changed, and what of it is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from presence_ds.engine.resume_rules import PRESENCE, Change, changes, plain_values, refuse
from presence_ds.trainer.checkpoint.manifest import DamagedError, Manifest, checkpoint_folders, read_manifest
from presence_ds.trainer.checkpoint.recipe_rules import RECIPE
from presence_ds.trainer.ranks.process_group import Ranks
from presence_ds.trainer.run_directory.layout import RunDirectory

if TYPE_CHECKING:
    from presence_ds.trainer.recipe.plan import Plan
    from presence_ds.trainer.recipe.recipe import Recipe

OF_THE_LIBRARY = ("_name_or_path", "transformers_version", "architectures", "dtype")  # no part of an architecture


def recipe_values(recipe: Recipe, plan: Plan, deepspeed: str, run_dir: Path) -> dict[str, Any]:
    """What a recipe comes to, as plain values that JSON holds: defaults filled in, and what "auto" and null stand for.

    Args:
        recipe: validated, of ``plan``.
        plan: its model's configuration not yet fitted to the tokenizer.
        deepspeed, run_dir: the files that the recipe names, found.
    """
    values = asdict(recipe)
    config = json.loads(plan.model_config.to_json_string(use_diff=False))
    values["model"]["config"] = {name: value for name, value in config.items() if name not in OF_THE_LIBRARY}
    values["training"]["precision"] = plan.precision
    running = recipe.presence.uses_running_statistics(plan.deepspeed["gradient_accumulation_steps"])
    values["presence"] = plain_values(recipe.presence, running=running)
    plain: dict[str, Any] = json.loads(json.dumps(values | {"deepspeed": deepspeed, "run_dir": str(run_dir)}))
    return plain


def submitted_changes(recipe: Recipe, plan: Plan, deepspeed: str, directory: RunDirectory) -> list[Change]:
    """`recipe_changes` of the checkpoint that a job is likely to go on from, of which nothing but the manifest is read.

    What only the job knows is left out: what precision auto comes to, and the commits of datasets on the hub.
    """
    named = recipe.checkpoint.resume
    if named == "never":
        return []
    now = recipe_values(recipe, plan, deepspeed, directory.path)
    if recipe.training.precision == "auto":
        del now["training"]["precision"]
    if recipe.data.streaming is not None:
        for source in [*now["data"]["sources"], *(now["data"]["validation_sources"] or [])]:
            del source["revision"]
    for checkpoint in checkpoint_folders(directory.checkpoints)[::-1] if named == "auto" else [Path(named)]:
        try:
            before = stored_recipe(checkpoint, read_manifest(checkpoint))
        except DamagedError:
            continue
        return [] if before is None else recipe_changes(checkpoint, before, now, print)
    return []


def agreed_changes(checkpoint: Path, manifest: Manifest, now: dict[str, Any], ranks: Ranks) -> list[Change]:
    """`recipe_changes` on every rank alike, of what rank 0 finds stored."""
    before = ranks.on_main(lambda: stored_recipe(checkpoint, manifest))
    with ranks.agreement():
        return recipe_changes(checkpoint, before, now, ranks.warn)


def stored_recipe(checkpoint: Path, manifest: Manifest) -> dict[str, Any] | None:
    """The recipe that a checkpoint was written with; of one without, what its run directory says; None without that."""
    if manifest.recipe is not None:
        return _with_listed_noise(manifest.recipe)
    try:
        values = yaml.safe_load(RunDirectory(checkpoint.parents[1]).recipe.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return _with_listed_noise(_stated(values)) if isinstance(values, dict) else None


def _with_listed_noise(values: dict[str, Any]) -> dict[str, Any]:
    """A recipe whose noise is a list, also of when there was one kind of it, and a section in the place of the list."""
    data = values.get("data")
    if isinstance(data, dict) and isinstance(noise := data.get("noise"), dict):
        return values | {"data": data | {"noise": [{"kind": "shuffled", **noise}]}}
    return values


def _stated(values: dict[str, Any]) -> dict[str, Any]:
    """What a recipe as it was given states by itself: without nulls, which stand for what it came to."""
    stated = {
        name: _stated(value) if isinstance(value, dict) else value
        for name, value in values.items()
        if value is not None
    }
    if stated.get("precision") == "auto":
        del stated["precision"]
    return stated


def recipe_changes(
    checkpoint: Path, before: dict[str, Any] | None, now: dict[str, Any], warn: Callable[[str], None]
) -> list[Change]:
    """What is another value than when the checkpoint was written, and may be.

    Args:
        before: what `stored_recipe` found.
        now: of `recipe_values`; fields that are not known yet may be missing.
        warn: takes a line if there is nothing to compare with.

    Raises:
        ConfigError: the first field that may not change, in one line.
    """
    if before is None:
        warn(f"checkpoint {checkpoint} does not say with what recipe it was written: settings cannot be compared")
        return []
    method = before.get("presence", {}), now["presence"]
    rest = {name: value for name, value in before.items() if name != "presence"}
    found = [*changes(RECIPE, rest, now, presence=method), *changes(PRESENCE, *method, "presence.")]
    refuse(found, str(checkpoint), "start anew in a new run_dir")
    return found
