"""The text of the samples that a run's figures name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from presence_ds.errors import ConfigError, DataError
from presence_ds.trainer.report.sample_figures import Extreme, MovedSample, MovedStep

CHARACTERS = 500


def with_texts(
    run_dir: Path, moved: Sequence[MovedStep], extremes: Sequence[Extreme]
) -> tuple[list[MovedStep], list[Extreme], list[str]]:
    """The same with texts as far as the run's corpus has them, and what is missing."""
    from presence_ds.trainer.samples.texts import Sample, SampleTexts

    def key(one: MovedSample | Extreme) -> Sample:
        return Sample(one.source, one.document_id, one.offset)

    asked = list(dict.fromkeys([*(key(one) for step in moved for one in step.samples), *map(key, extremes)]))
    if not asked:
        return [], [], []
    try:
        found = dict(zip(asked, SampleTexts.of_run(run_dir).find(asked, CHARACTERS), strict=True))
    except (ConfigError, DataError) as error:
        return list(moved), list(extremes), [f"There is no text of samples: {str(error).rstrip('.')}."]
    missing = []
    if lacking := sum(text is None for text in found.values()):
        missing.append(f"The corpus has no text of {lacking:,} of the {len(found):,} samples that stand out.")
    told = [replace(step, samples=[replace(one, text=found[key(one)]) for one in step.samples]) for step in moved]
    return told, [replace(one, text=found[key(one)]) for one in extremes], missing
