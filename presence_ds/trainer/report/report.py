"""Run directories → a report of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import presence_ds
from presence_ds.errors import ConfigError
from presence_ds.trainer.report.comparison import TOLERANCE, comparisons_of, groups_of
from presence_ds.trainer.report.configuration import differences, read_configuration, weights_in_words
from presence_ds.trainer.report.figures import Comparison, Group, Report, RunFigures
from presence_ds.trainer.report.metrics import MetricsFigures, read_metrics
from presence_ds.trainer.report.plain import plain
from presence_ds.trainer.report.records import RecordFigures, read_records
from presence_ds.trainer.report.sample_figures import Extreme, MovedStep, SourceFigures
from presence_ds.trainer.report.text import with_texts
from presence_ds.trainer.report.words import summary_of
from presence_ds.trainer.report.worth import worth_of
from presence_ds.trainer.run_directory.layout import RunDirectory
from presence_ds.trainer.status.status import Status, read_status


def make_report(paths: Sequence[Path], *, tolerance: float = TOLERANCE, texts: bool = True) -> Report:
    """What there is to say of the runs in ``paths``, which are only read and may be in progress.

    Args:
        tolerance: nats of validation loss within which groups are called equivalent.
        texts: whether the text of samples that stand out is shown.

    Raises:
        ConfigError: one of ``paths`` is no directory, or cannot be looked into.
    """
    named: dict[str, Path] = {}
    for path in paths:
        named.setdefault(os.path.realpath(path), path.absolute())  # a run and a link to it are one
    paths = list(named.values())
    for path in paths:
        if not path.is_dir():
            raise ConfigError(f"run_dir is {path}: there is no such directory")
        if not os.access(path, os.R_OK | os.X_OK):
            raise ConfigError(f"run_dir is {path}: it may not be read")
    states = states_of(paths)
    runs = [_run(path, label, states.get(path), texts=texts) for path, label in zip(paths, _labels(paths), strict=True)]
    groups = groups_of(runs)
    for number, group in enumerate(groups):
        for place in group.runs:
            runs[place] = replace(runs[place], group=number)
    comparisons = comparisons_of(runs, groups, tolerance)
    return Report(
        made=datetime.now().astimezone().isoformat(timespec="seconds"),
        version=presence_ds.__version__,
        summary=summary_of(runs, groups, comparisons),
        runs=runs,
        groups=groups,
        comparisons=comparisons,
        configuration_differences=differences([run.configuration for run in runs]),
        missing=_missing(runs, groups, comparisons),
    )


def _labels(paths: Sequence[Path]) -> list[str]:
    """Paths without the folders that all of them are in; of one its name."""
    common = os.path.commonpath([path.parent for path in paths])
    return [str(path.relative_to(common)) if path != Path(common) else path.name or str(path) for path in paths]


def _run(path: Path, label: str, status: Status | None, *, texts: bool) -> RunFigures:
    directory = RunDirectory(path)
    configuration = read_configuration(directory.recipe)
    total_steps = status.total_steps if status else None
    metrics = read_metrics(directory.metrics, total_steps)
    records = read_records(directory.scores, metrics.chosen)
    worth, sources, unknown = worth_of(path, metrics.last, records.sources or _logged_sources(metrics))
    moved, extremes, unread = with_texts(path, records.moved, records.extremes) if texts else (*_found(records), [])
    missing = [*metrics.missing, *records.missing, *unknown, *unread]
    if not configuration:
        missing.insert(0, f"There is no {directory.recipe.name} that can be read: how the run was set up is not known.")
    seed = configuration.get("training.seed")
    return RunFigures(
        run_dir=str(path),
        label=label,
        seed=seed if isinstance(seed, int) else None,
        weights=weights_in_words(configuration),
        state=status.state if status else "unknown",
        told=status.told if status else f"it has no {directory.recipe.name}",
        step=metrics.step,
        total_steps=total_steps,
        tokens=metrics.tokens,
        hours=metrics.hours,
        samples_per_step=metrics.samples_per_step,
        missing=missing,
        notes=records.notes,
        curves=metrics.curves,
        validation=metrics.validation,
        validation_loss=metrics.last_validation.get("validation/loss"),
        last=metrics.last,
        events=metrics.events,
        counts=metrics.counts,
        sources=sources,
        records=records.records,
        records_share=records.records_share,
        effective_share=records.effective_share if records.effective_share is not None else metrics.effective_share,
        self_influence=records.self_influence,
        weight=records.weight,
        plane=records.plane,
        moved=moved,
        extremes=extremes,
        worth=worth,
        cost=metrics.cost,
        configuration=configuration,
    )


def _found(records: RecordFigures) -> tuple[list[MovedStep], list[Extreme]]:
    return records.moved, records.extremes


def states_of(paths: Sequence[Path]) -> dict[Path, Status]:
    """Of those that hold a run; all at once, as to see the heart of one on another machine beat takes seconds."""
    known = [path for path in paths if RunDirectory(path).recipe.is_file()]
    try:
        return dict(zip(known, read_status(known), strict=True))
    except (ConfigError, OSError):  # of files that go while they are looked at
        return {}


def _logged_sources(metrics: MetricsFigures) -> list[SourceFigures]:
    """Without records: over the logged steps."""
    sums = metrics.source_sums
    total = sum(one["samples"] or 0.0 for one in sums.values())
    weights = {name: (one["samples"] or 0.0) * (one["mean_weight"] or 0.0) for name, one in sums.items()}
    mass = sum(weights.values())
    found = [
        SourceFigures(
            name=name,
            samples=int(one["samples"] or 0),
            share_of_samples=plain((one["samples"] or 0.0) / total) or 0.0,
            weight_mass=plain(weights[name] / mass) if mass else None,
            mean_si=one["mean_si"],
            mean_weight=one["mean_weight"],
            mean_loss=one["mean_loss"],
        )
        for name, one in sums.items()
    ]
    return sorted(found, key=lambda one: -one.samples)


def _missing(runs: Sequence[RunFigures], groups: Sequence[Group], comparisons: Sequence[Comparison]) -> list[str]:
    if len(groups) < 2:
        return []
    if not any(run.validation for run in runs):
        return ["Groups are not compared: no run has figures of a validation split."]
    compared = {place for one in comparisons for place in (one.group, one.baseline)}
    return [
        f"{group.name[:1].upper()}{group.name[1:]}: not compared, as what it would be compared with has no run of the "
        f"same seeds, evaluated at the same step."
        for place, group in enumerate(groups)
        if place not in compared
    ]
