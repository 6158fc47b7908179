"""Memory measured without numbers against the same code run with them."""

import pytest
import torch

from presence_ds.engine import PresenceConfig
from presence_ds.trainer.estimate.activations import micro_step_peak
from tests.models import KINDS, tiny_model, tokens

CONFIGS = {
    "plain": None,
    "one_pass": PresenceConfig(projection_dim=8),
    "one_pass exact": PresenceConfig(estimator="exact"),
    "two_pass": PresenceConfig(projection_dim=8, strategy="two_pass"),
    "loss": PresenceConfig(signal="loss"),
    "microbatch": PresenceConfig(projection_dim=8, granularity="microbatch"),
}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", list(CONFIGS))
@pytest.mark.parametrize("kind", KINDS)
def test_peak_and_projections(kind: str, name: str, attention: str) -> None:
    ids = tokens(4, 48)
    found = []
    for device in ("cpu", "meta"):
        with torch.device(device):  # moving a model to the meta device would untie it
            model = tiny_model(kind, tied=kind == "llama")
        model.set_attn_implementation(attention)
        found.append(micro_step_peak(model, CONFIGS[name], ids.to(device)))
        assert all(parameter.grad is None for parameter in model.parameters())
    assert found[1] == pytest.approx(found[0], rel=0.03, abs=64)


def test_checkpointing_keeps_less() -> None:
    peaks = []
    for checkpointing in (False, True):
        with torch.device("meta"):
            model = tiny_model("llama", tied=True)
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        peak, _ = micro_step_peak(model, CONFIGS["two_pass"], torch.empty(4, 48, dtype=torch.int64, device="meta"))
        peaks.append(peak)
    assert peaks[1] < 0.8 * peaks[0]
