"""Figures of every source, and how the ranks exchange what they come from."""

import math
import pickle
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.reweighting.steps import micro_batch, reweighting

pytestmark = pytest.mark.usefixtures("one_process")


@pytest.mark.parametrize(("sources", "accumulation_steps"), [(3, 1), (400, 2)])
def test_figures_of_every_source_against_a_loop(sources: int, accumulation_steps: int) -> None:
    """One gather into one tensor; a source none of whose samples is finite has NaN, and its weight counts."""
    generator = torch.Generator().manual_seed(sources)
    batches = []
    for _ in range(accumulation_steps):
        losses, scores = torch.rand(600, generator=generator) + 1.0, torch.rand(600, generator=generator)
        ids = torch.randint(0, sources, (600,), generator=generator) * 7
        losses[ids == ids[0]] = math.nan
        batches.append(micro_batch(scores, losses=losses, sources=ids))
    target = reweighting(0.5)
    for batch in batches:
        target.collect(batch)
    with CollectiveNames() as seen:
        result = target.finish(1)
    assert seen.names == ["_allgather_base_"]
    figures = result.statistics["sources"]
    ids = torch.cat([batch.sources for batch in batches])
    losses, scores = (torch.cat([getattr(batch, name) for batch in batches]).double() for name in ("losses", "scores"))
    assert list(figures) == sorted(set(ids.tolist()))
    assert pickle.loads(pickle.dumps(figures)).keys() == figures.keys()
    for source, found in figures.items():
        member = ids == source
        good = member & losses.isfinite()
        assert found["samples"] == int(member.sum())
        assert found["mean_weight"] == pytest.approx(result.local[member].double().mean().item() * len(ids), rel=1e-5)
        assert found["loss"] == pytest.approx(losses[good].mean().item(), nan_ok=True)
        assert found["si_mean"] == pytest.approx(scores[good].mean().item(), nan_ok=True)


class CollectiveNames(TorchDispatchMode):
    """Inside, the collectives by the name of torch's operator."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "c10d":
            self.names.append(func._schema.name.removeprefix("c10d::"))
        return func(*args, **(kwargs or {}))
