"""Sums over the steps of a stage, with many sources."""

import math
from typing import Any

import pytest
import torch

from presence_ds.reweighting.statistics import SourceFigures
from presence_ds.trainer.callbacks.stage_summary import StageSums, stage_means


def figures(ids: list[int], scored: bool) -> dict[str, Any]:
    columns = {"samples": torch.tensor([number + 1 for number in ids])}
    columns["mean_weight"] = torch.tensor([0.5 * number for number in ids], dtype=torch.float64)
    if scored:
        means = [math.nan if number == 1 else 10.0 * number for number in ids]
        columns["si_mean"] = torch.tensor(means, dtype=torch.float64)
    return {"effective_sample_size": 2.0, "samples": 8, "sources": SourceFigures(torch.tensor(ids), columns)}


@pytest.mark.parametrize("scored", [True, False])
def test_sums_go_on_after_a_resume_with_more_sources(scored: bool) -> None:
    names = ["a", "b", "c"]
    stage = StageSums()
    stage.add(figures([0, 2], scored), names)
    stage.add(figures([1, 2], scored), names)
    stage = StageSums.of_state(stage.state_dict())
    stage.add(figures([3, 2], scored), ["new", *names])  # c and b of before
    found = stage_means(stage.state_dict())
    assert (found["steps"], found["mean_effective_share"]) == (3, 0.25)
    assert found["sources"] == {
        "a": {"samples": 1, "mean_weight": 0.0, "mean_si": 0.0 if scored else None},
        "b": {"samples": 5, "mean_weight": (2 * 0.5 + 3 * 1.0) / 5, "mean_si": 20.0 if scored else None},
        "c": {"samples": 10, "mean_weight": (6 * 1.0 + 4 * 1.5) / 10, "mean_si": 24.0 if scored else None},
    }
