"""A step of one_pass lets the host wait for the device where a plain one does, and for the weights; nowhere else."""

import warnings
from typing import Any

import deepspeed
import pytest
import torch

from tests.engine.behaviour import start
from tests.engine.training import LENGTH, MICRO_BATCH, deepspeed_config, optimizer_for
from tests.gpu.device import DEVICE
from tests.gpu.waiting import of_steps, waits
from tests.models import tiny_model, tokens

STEPS = 3
# Waits of the package in a step, by the beginning of file and line.
ALLOWED = {
    "presence_ds/reweighting/": 1,  # the scores of all ranks, from which the weights are made on the host
}


def stepping(engine: Any) -> Any:
    """A function that takes one step, always on the same micro-batch."""
    ids = tokens(MICRO_BATCH, LENGTH).to(DEVICE)

    def step() -> None:
        loss = engine(input_ids=ids, labels=ids)
        engine.backward(loss if isinstance(loss, torch.Tensor) else loss.loss)
        engine.step()

    return step


@pytest.mark.usefixtures("rank")
@pytest.mark.parametrize("stage", [2, 3])
@pytest.mark.parametrize(
    "presence", [{"preset": "paper"}, {"preset": "calibrated"}, {"preset": "paper", "estimator": "exact"}], ids=str
)
def test_one_pass_waits_for_the_weights_alone(stage: int, presence: dict[str, Any]) -> None:
    sections = {"bf16": {"enabled": True}}
    model = tiny_model("llama", tied=False)
    optimizer = optimizer_for("sgd", model.parameters())
    plain = deepspeed.initialize(model=model, config=deepspeed_config(stage, 1, **sections), optimizer=optimizer)[0]
    allowed = of_steps(stepping(plain), STEPS)
    plain.destroy()
    engine = start(stage=stage, presence={"projection_dim": 8} | presence, **sections)
    found = of_steps(stepping(engine), STEPS)
    engine.destroy()
    ours = {line: count for line, count in found.items() if line.startswith("presence_ds/")}
    for place, count in ALLOWED.items():
        at_place = sum(number for line, number in ours.items() if line.startswith(place))
        assert at_place <= count * STEPS, ours
    assert all(line.startswith(tuple(ALLOWED)) for line in ours), ours
    others = found - allowed
    assert not {line: count for line, count in others.items() if line not in ours}, others


def test_a_wait_is_found_with_its_line() -> None:
    """By torch's warning; without a GPU by one like it."""
    with waits() as found:
        if DEVICE.type == "cuda":
            torch.ones(1, device=DEVICE).item()
        else:
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        warnings.warn("something else", stacklevel=1)
    assert sum(found.values()) == 1
    with waits() as found:
        pass
    assert not found
