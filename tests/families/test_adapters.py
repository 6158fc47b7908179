"""LoRA adapters of peft: the base is frozen, and only the adapters have per-sample gradients."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from presence_ds.capture import OuterTerm
from tests.families.models import FAMILIES
from tests.families.samples import Captured, make_batch, one_at_a_time


@pytest.mark.parametrize(
    ("name", "targets", "options"),
    [
        ("llama", ["q_proj", "v_proj", "down_proj"], {}),
        ("llama", ["v_proj"], {"layers_to_transform": [1]}),  # the first block has nothing to learn
        ("llama", ["q_proj"], {"modules_to_save": ["lm_head"]}),
        ("qwen2", ["q_proj"], {"bias": "all"}),
        ("gpt2", ["c_attn", "c_proj"], {"fan_in_fan_out": True}),
        ("t5", ["q", "v", "wo"], {}),
    ],
)
def test_adapters_are_exact_and_the_base_is_left_alone(name: str, targets: list[str], options: dict) -> None:
    family = FAMILIES[name]
    base = family.build(tied=False)
    model = get_peft_model(base, LoraConfig(r=3, lora_alpha=6, target_modules=targets, **options)).double().train()
    for key, parameter in model.named_parameters():
        if "lora_" in key:
            nn.init.normal_(parameter, std=0.3)  # the second factor starts at zero, where the first has no gradient
    batch = make_batch(3, 6, target_length=4 if family.encoder_decoder else None, padding_side="right")
    captured = Captured(model, batch)
    assert captured.instrumentation.unattributable == {}
    assert set(captured.terms) == {parameter for parameter in model.parameters() if parameter.requires_grad}
    assert any("lora_" in key for key in captured.parameters)
    for key, parameter in captured.parameters.items():
        if "lora_" in key:
            assert all(isinstance(term, OuterTerm) for term in captured.terms[parameter])

    expected = one_at_a_time(model, batch, list(captured.parameters.values()))
    brute = torch.stack([sum(gradient.square().sum() for gradient in sample) for sample in expected])
    torch.testing.assert_close(captured.scores(), brute, rtol=1e-4, atol=1e-12)
    totals = captured.weighted_sum(torch.ones(3, dtype=torch.float64))
    for total, *by_sample in zip(totals.values(), *expected, strict=True):
        torch.testing.assert_close(total, sum(by_sample), rtol=1e-4, atol=1e-7)
