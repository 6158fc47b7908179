"""The running gradient of the trusted stream after a checkpoint, on a device that is not the host.

There need be no GPU for that: tensors on torch's device ``meta`` refuse like a GPU's to be added to those of the host.
"""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from presence_ds.engine.reference import Reference
from presence_ds.reweighting import Reweighting, ReweightingConfig, ScheduleConfig, WeightingConfig
from tests.reweighting.steps import finished


class _NoIsTheAnswer(TorchDispatchMode):
    """Answers what Python asks a tensor without numbers: the update asks whether no sample was finite."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return False if func is torch.ops.aten._local_scalar_dense.default else func(*args, **(kwargs or {}))


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_reference_goes_on_where_the_features_are(dtype: torch.dtype) -> None:
    reference = Reference(0.9, None, "meta")
    reference.load_state_dict({"sum": torch.ones(3, dtype=dtype), "weight": 0.1})
    features = torch.ones(2, 3, device="meta")
    before = reference.align(features)
    with _NoIsTheAnswer():
        reference.update(features)
    for aligned in (before, reference.align(features)):
        assert (aligned.device.type, aligned.dtype) == ("meta", torch.float32)


@pytest.mark.usefixtures("one_process")
def test_a_reference_is_its_own_after_a_load() -> None:
    """Neither what was loaded nor the engine that saved it changes when the other goes on."""
    features, held = torch.eye(3), torch.tensor([1.0, 2.0, 3.0])
    references = [Reference(0.5, None) for _ in range(2)]
    for reference in references:
        reference.load_state_dict({"sum": held, "weight": 0.1})
    references[0].update(features)
    assert torch.equal(references[1].align(features), torch.tensor([10.0, 20.0, 30.0]))
    references[1].update(features)
    assert torch.equal(references[0].align(features), references[1].align(features))
    assert held.tolist() == [1.0, 2.0, 3.0]


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("normalizer", ["zscore", "log_zscore"])
@pytest.mark.parametrize("kind", ["softmax", "clip"])
@pytest.mark.parametrize("schedule", ["constant", "auto"])
def test_what_weights_keep_for_a_checkpoint_is_on_no_device(kind: str, normalizer: Any, schedule: Any) -> None:
    config = ReweightingConfig(
        normalizer=normalizer,
        weighting=WeightingConfig(kind=kind),
        schedule=ScheduleConfig(kind=schedule, training_steps=100),
    )
    target = Reweighting(config, running=True, group=None)
    finished(target, [1.0, 2.0, 4.0])
    assert _leaves(target.state_dict()) <= {int, float, str, bool, type(None)}


def _leaves(state: Any) -> set[type]:
    if isinstance(state, dict):
        return {kind for value in state.values() for kind in _leaves(value)}
    return {type(state)}
