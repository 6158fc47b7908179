"""Every figure has a section, and the names in metrics.jsonl stay."""

import pytest

from presence_ds.trainer.trackers.sections import AXES, SECTIONS, sectioned, shown_name
from tests.trainer.trackers.conftest import Tracked


def test_every_figure_of_a_run_has_a_section(tracked: Tracked) -> None:
    names = {name for line in tracked.metrics for name in line}
    assert {"hours", "mfu", "scoring_share", "near_duplicate_share", "slurm_restart_count"} <= names
    shown = {name: shown_name(name) for name in names}
    assert [name for name, at in shown.items() if at is None] == []
    assert len(set(shown.values())) == len(names)
    assert {at.split("/")[0] for at in shown.values() if at not in AXES} == set(SECTIONS)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("loss", "train/loss"),
        ("validation/a/b/loss", "validation/a/b/loss"),
        ("source/a/b/update_share", "sources/a/b/update_share"),
        ("gain/in_use_error", "gain/in_use_error"),
        ("noise_scale", "gain/noise_scale"),
        ("throughput(tokens/s)", "throughput/tokens_per_second"),
        ("hours", "hours"),
        ("of another version", None),
    ],
)
def test_names(name: str, expected: str | None) -> None:
    assert shown_name(name) == expected


def test_what_no_section_has_is_shown_all_the_same() -> None:
    line = {"of another version": 1, "source/n\udce9e/loss": float("nan")}
    assert sectioned(line) == {"system/of another version": 1, "sources/n\\udce9e/loss": None}
