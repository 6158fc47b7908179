import io
from typing import Any

import pytest
from rich.console import Console as RichConsole

from presence_ds.trainer.callbacks.console import describe, print_summary

METRICS: dict[str, Any] = {"loss": 2.0, "stage": "direct", "effective_sample_size": 5.0}


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"tau": 0.5}, "loss 2.0000  τ 0.5 (direct)"),
        ({"clip_level": 0.0625, "stage": "constant"}, "loss 2.0000  SI clipped at 0.0625"),
        ({"stage": "constant"}, "loss 2.0000"),  # clip of a step in which no sample has a gradient, or uniform weights
        ({"loss": float("nan"), "tau": -1.0}, "loss nan  τ -1 (direct)"),
    ],
)
def test_a_line_has_what_there_is_of_the_weights(more: dict[str, Any], expected: str) -> None:
    assert describe(METRICS | more) == expected


def test_a_step_that_was_skipped() -> None:
    assert describe({"stage": "direct"}) == "no sample to learn from, the step was skipped"


def test_names_of_sources_are_no_markup() -> None:
    """Names are users' own; the summary of a finished run must not end in an error of the terminal's."""
    source = {"samples": 3, "mean_weight": 1.0, "mean_si": None}
    stage = {"steps": 1, "mean_effective_share": 1.0, "sources": {"[/x] :smile:": source}}
    summary = {
        "run_dir": "/runs/[/x]\x1b", "steps": 1, "tokens": 9, "tokens_per_second": None, "validation_loss": 2.0,
        "validation": {
            "validation/loss": 2.0, "validation/bits_per_byte": None,
            "validation/[/x]/loss": 2.0, "validation/[/y]/loss": 2.0,
        },
        "stages": {"constant": stage},
        "worth": {"noise_scale": None, "gains": {}, "sources": {}},
    }  # fmt: skip
    console = RichConsole(file=io.StringIO(), width=100, emoji=False)
    print_summary(console, summary)
    printed = console.file.getvalue()
    assert "[/x] :smile:" in printed
    assert "/runs/[/x]\\x1b" in printed
    assert "([/x] 2.0000, [/y] 2.0000)" in printed
    assert "cannot be told" in printed
    assert "verdict" not in printed  # of no sources there is no table
