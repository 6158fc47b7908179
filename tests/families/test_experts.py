"""Mixtures of experts: the experts are left out by name, everything else is scored as if they were frozen."""

import pytest
import torch

from presence_ds.capture import OuterTerm
from tests.families.models import FAMILIES
from tests.families.samples import Captured, make_batch, one_at_a_time


@pytest.mark.parametrize(
    ("name", "per_block"),
    [
        ("mixtral", ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]),
        ("qwen3_moe", ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]),
        ("olmoe", ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]),
    ],
)
def test_experts_are_left_out_by_name(name: str, per_block: list[str]) -> None:
    model = FAMILIES[name].build(tied=False)
    batch = make_batch(3, 6)
    captured = Captured(model, batch)
    left_out = captured.instrumentation.left_out
    assert left_out == [f"model.layers.{block}.{parameter}" for block in (0, 1) for parameter in per_block]
    reason = next(iter(captured.instrumentation.unattributable.values()))
    assert reason.startswith("module model.layers.0.mlp.experts (")
    assert "holds stacks of matrices (gate_up_proj, down_proj)" in reason

    parameters = {key: p for key, p in model.named_parameters() if key not in left_out}
    expected = one_at_a_time(model, batch, list(parameters.values()))
    brute = torch.stack([sum(gradient.square().sum() for gradient in sample) for sample in expected])
    torch.testing.assert_close(captured.scores(), brute, rtol=1e-4, atol=1e-10)
    router = model.model.layers[0].mlp.gate.weight
    assert [type(term) for term in captured.terms[router]] == [OuterTerm]
    assert one_at_a_time(model, batch, [router])[0][0].abs().sum() > 0
