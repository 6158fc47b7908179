"""Whole micro-steps with the model on one device and the rest on another: nothing mixes them by mistake."""

import io
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from presence_ds import PresenceConfig
from tests.engine.one_device import DEVICE, Engine, OneDevice, collectives_of_the_device
from tests.models import VOCABULARY, tiny_model

SAMPLES, LENGTH = 4, 9
LEVERAGE: dict[str, Any] = {"signal": "leverage", "projection_dim": 4, "near_duplicates": 0.9}
CASES: list[tuple[int, dict[str, Any]]] = [  # accumulation steps, section
    (1, {"estimator": "exact"}),
    (2, {"preset": "paper", "projection_dim": 4}),
    (1, LEVERAGE),
    (1, {"signal": "alignment", "projection_dim": 4}),
    (1, {"granularity": "microbatch"}),
    (2, {"granularity": "global_microbatch"}),
    (2, {"signal": "loss"}),
    (2, {"projection_dim": 4, "alignment": True, "weighting": {"features": ["momentum", "vocabulary"]}}),
    (2, {"strategy": "two_pass"}),
    (1, {"strategy": "two_pass", "estimator": "exact"}),
    (2, {"strategy": "two_pass"} | LEVERAGE),
    (2, {"strategy": "two_pass", "signal": "loss", "preset": "paper"}),
]


def start(kind: str, section: dict[str, Any], accumulation_steps: int, *, may_overflow: bool = True) -> Engine:
    with torch.device(DEVICE):
        model = tiny_model(kind, tied=kind == "gpt2")
    config = PresenceConfig.from_mapping(section)
    config.fill_training_steps(10)
    config.validate()
    sizes = {"micro_batch_size": SAMPLES, "accumulation_steps": accumulation_steps}
    return Engine(model, config, **sizes, may_overflow=may_overflow)


def train(engine: Engine, accumulation_steps: int, *, masked: bool = True) -> None:
    ids = torch.zeros(SAMPLES, LENGTH, dtype=torch.int64, device=DEVICE)
    batch = {"input_ids": ids, "labels": ids} | ({"attention_mask": torch.ones_like(ids)} if masked else {})
    if engine.presence.config.signal == "alignment":
        with OneDevice(answer=False):  # to whether no sample of the reference is finite
            engine.presence.observe_reference(engine.module.forward, (), batch, 1.0)
    engine.train([batch] * accumulation_steps, sources=ids[:, 0])
    for name, parameter in engine.module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.device == DEVICE
    assert engine.presence.weights is not None
    assert engine.presence.weights.device.type == "cpu"


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("finite", [True, False], ids=["finite", "a sample is not"])
@pytest.mark.parametrize(("accumulation_steps", "section"), CASES, ids=str)
def test_no_micro_step_mixes_devices(
    monkeypatch: pytest.MonkeyPatch, accumulation_steps: int, section: dict[str, Any], finite: bool
) -> None:
    """Training, a checkpoint, and training that goes on from it in another process."""
    kind = "gpt2" if "projection_dim" in section else "llama"
    with collectives_of_the_device(monkeypatch), OneDevice(answer=finite):
        engine = start(kind, section, accumulation_steps)
        train(engine, accumulation_steps)
        state = engine.presence.state_dict()
        assert all(value.device.type == "cpu" for value in tree_leaves(state) if isinstance(value, Tensor))
        file = io.BytesIO()
        torch.save(state, file)
        file.seek(0)
        resumed = start(kind, section, accumulation_steps)
        resumed.presence.load_state_dict(torch.load(file, weights_only=True))
        train(resumed, accumulation_steps)


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize(
    ("accumulation_steps", "section", "waits"),
    [
        (1, {"projection_dim": 4}, 1),
        (1, {"projection_dim": 4, "preset": "paper", "alignment": True}, 1),
        (1, {"estimator": "exact"}, 1),
        (1, {"projection_dim": 4, "preset": "calibrated", "weighting": {"features": ["norm", "momentum"]}}, 1),
        (1, {"projection_dim": 4, "granularity": "microbatch"}, 1),
        (2, {"projection_dim": 4}, 2),  # one in each micro-step
        (2, {"projection_dim": 4, "strategy": "two_pass"}, 3),  # and which samples to replace in each of the others
        (1, {"signal": "loss"}, 2),  # and whether all is finite, without which there would be a second forward
        (1, LEVERAGE, 3),
    ],
    ids=str,
)
def test_a_step_waits_for_its_weights_alone(
    monkeypatch: pytest.MonkeyPatch, accumulation_steps: int, section: dict[str, Any], waits: int
) -> None:
    """Times in which the host stands still until the device has come as far, in a step after the first one."""
    with collectives_of_the_device(monkeypatch), OneDevice() as device:
        engine = start("llama", section, accumulation_steps, may_overflow=False)
        for _ in range(2):
            device.waits.clear()
            train(engine, accumulation_steps, masked=False)
    assert len(device.waits) == waits, device.waits


def test_a_mistake_is_found() -> None:
    with OneDevice():
        ids = torch.zeros(SAMPLES, VOCABULARY, device=DEVICE)
        for mistake in (
            lambda: ids + torch.ones(VOCABULARY),
            lambda: ids @ torch.ones(VOCABULARY, 2),
            lambda: torch.ones(SAMPLES)[ids[:, 0].long()],
            lambda: ids.masked_fill(torch.ones(SAMPLES, 1) > 0, 0.0),
            lambda: torch.zeros(()).add_(ids.sum()),
        ):
            with pytest.raises(AssertionError, match="mixes the device's"):
                mistake()
        assert (ids * torch.ones(())).device == ids[torch.arange(2)].device == DEVICE
        assert ids.cpu().tolist()[0][:3] == [1.0, 3.0, 5.0]
