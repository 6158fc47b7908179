"""What a training step keeps is gone when the step is: DeepSpeed runs without Python's cycle collector."""

import gc
import weakref

import pytest
import torch

from presence_ds.engine.scorer import Scorer
from presence_ds.engine.weight_gradients import weight_gradient_sweep
from presence_ds.influence import SampleLoss, ScoreSweep, SelfInfluence, select_parameters
from tests.models import KINDS, tiny_model, tokens


@pytest.mark.parametrize("backward", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_capture_dies_with_its_step(monkeypatch: pytest.MonkeyPatch, kind: str, backward: bool) -> None:
    slabs: list[torch.Tensor] = []
    sketches = ScoreSweep.sketches
    monkeypatch.setattr(ScoreSweep, "sketches", lambda sweep: slabs.append(sketches(sweep)) or slabs[0])
    model = tiny_model(kind, tied=True)
    influence = SelfInfluence(select_parameters(model, "all"), 4, 0, keeps_sketches=True)
    scorer = Scorer(model, influence, SampleLoss(), sketches=True, alignment_dim=8)
    ids = tokens(3, 9)
    gc.collect()
    gc.disable()
    try:
        scored = scorer.score(model.forward, (), {"input_ids": ids, "labels": ids})
        capture, slab = weakref.ref(scored.capture), weakref.ref(slabs[0])
        slabs.clear()
        factors = [
            weakref.ref(term.cols)
            for terms in scored.capture.terms.values()
            for term in terms[:1]
            if hasattr(term, "cols")
        ]
        loss = weight_gradient_sweep(scored)(torch.ones(3, dtype=torch.float64))
        del scored
        assert slab() is None  # all sketches: with scores and alignments known nobody needs them
        if backward:
            loss.backward()
            # each layer's factors are freed as soon as its weight gradient is formed
            assert all(factor() is None for factor in factors)
        del loss
        assert capture() is None
        assert all(factor() is None for factor in factors)
    finally:
        gc.enable()
