"""The score records of a run → what its weights and sources were worth, and what other weights would have been."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from presence_ds.errors import ConfigError
from presence_ds.reweighting import ReweightingConfig
from presence_ds.reweighting.config import AlignedWith
from presence_ds.reweighting.value.gain import COMPARED
from presence_ds.reweighting.value.past import PastWorth
from presence_ds.trainer.callbacks.worth_report import worth_figures
from presence_ds.trainer.gain.records import FEATURES, Reader, check_columns, columns_of, cut, find_row_groups
from presence_ds.trainer.run_directory.layout import RunDirectory


def past_figures(
    path: Path,
    weightings: dict[str, ReweightingConfig],
    first_step: int = 1,
    last_step: int | None = None,
    alignment_with: AlignedWith | None = None,
) -> dict[str, Any]:
    """Plain values, as `worth_figures` gives them, over some steps of the run in the directory ``path``.

    Beside those: ``first_step`` and ``last_step``, the number of ``steps`` that tell something and of their
    ``samples``, ``alignment_with``, and the ``mean_weight`` of every source, in units of the mean over all.

    Args:
        weightings: as of `read_weightings`.
        last_step: the last one that is recorded, unless given.
        alignment_with: what samples are taken to be good for; as in the run, unless given.

    Raises:
        ConfigError: no run, no records, none of these steps, or none with an alignment.
    """
    directory = RunDirectory(path)
    if not directory.recipe.is_file():
        raise ConfigError(f"run_dir is {path}: there is no run in it (it has no {directory.recipe.name})")
    groups = find_row_groups(directory)
    recorded = min(group.first for group in groups), max(group.last for group in groups)
    first = max(first_step, recorded[0])
    last = recorded[1] if last_step is None else min(last_step, recorded[1])
    groups = [group for group in groups if group.first <= last and group.last >= first]
    if first > last or not groups:
        name, value = ("first_step", first_step) if first_step > recorded[1] else ("last_step", last_step)
        raise ConfigError(f"{name} is {value}: records are of steps {recorded[0]} to {recorded[1]}")
    alignment_with = alignment_with or _alignment_with(directory)
    with_reference = alignment_with == "reference"
    compared = [*COMPARED.values(), *weightings.values()]
    features = {feature for one in compared if one.calibrates for feature in one.features}
    columns = columns_of(groups, features, with_reference=with_reference or any(one.uses_reference for one in compared))
    check_columns(groups, columns)
    _check_features(weightings, columns)

    worth, reader = PastWorth(weightings, first, last, with_reference=with_reference), Reader(columns)
    with _one_thread():
        for stretch in cut(groups):
            if stretch.first <= last and stretch.last >= first:
                records = reader.read(stretch._replace(first=max(first, stretch.first), last=min(last, stretch.last)))
                worth.observe(records.steps, records.samples, records.weights, len(reader.sources))
    figures = worth_figures(worth, reader.sources)
    means = worth.mean_weights
    for number, name in enumerate(reader.sources):
        if name in figures["sources"]:
            figures["sources"][name]["mean_weight"] = means.get(number)
    steps = {"first_step": first, "last_step": last, "steps": worth.steps, "samples": worth.samples}
    left_out = [feature for feature, name in FEATURES.items() if feature in features and name not in columns]
    return {
        "run_dir": str(path),
        **steps,
        "alignment_with": alignment_with,
        "calibrated_without": left_out,
        **figures,
    }


def _check_features(weightings: dict[str, ReweightingConfig], columns: list[str]) -> None:
    """Raise `ConfigError` for weights on features that are not recorded; those always compared go without them."""
    for name, config in weightings.items():
        for feature, column in FEATURES.items():
            if name not in COMPARED and feature in config.features and column not in columns:
                raise ConfigError(
                    f"weights.{name}.weighting.features has {feature}, and not all of these steps have {column} of "
                    f"their samples: leave it out, begin with a later --first_step, or train with presence.alignment "
                    f"true and {feature} in weighting.features"
                )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Without threads of torch's: the operations are small, and those wait for each other where cores are shared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _alignment_with(directory: RunDirectory) -> AlignedWith:
    """What the samples of a run were taken to be good for."""
    return "reference" if directory.setting("presence", "alignment_with") == "reference" else "step"
