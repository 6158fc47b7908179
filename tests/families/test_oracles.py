"""The same scores from other projects' per-sample gradients: torch.func, and Opacus' fast gradient clipping."""

from typing import Any

import pytest
import torch
from opacus.grad_sample import GradSampleModuleFastGradientClipping
from torch import Tensor
from torch.func import functional_call, grad, vmap
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from tests.families.models import FAMILIES
from tests.families.samples import Batch, Captured, make_batch, per_sample_losses


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma", "gpt_neox", "gpt2", "phi", "t5", "mt5", "umt5"])
def test_torch_func(name: str, tied: bool) -> None:
    family = FAMILIES[name]
    model = family.build(tied=tied)
    model.set_attn_implementation("eager")
    model.config.pad_token_id = None  # vmap cannot look for it among the tokens
    batch = make_batch(3, 6, target_length=4 if family.encoder_decoder else None, ignored=0.3)
    captured = Captured(model, batch)
    parameters = {name: parameter.detach() for name, parameter in captured.parameters.items()}

    class Losses(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, sample: Batch) -> Tensor:
            return per_sample_losses(self.model, {name: value.unsqueeze(0) for name, value in sample.items()}).sum()

    def loss(parameters: dict[str, Tensor], sample: Batch) -> Tensor:
        named = {f"model.{name}": value for name, value in parameters.items()}
        return functional_call(Losses(), named, (sample,))

    gradients = vmap(grad(loss), in_dims=(None, 0))(parameters, batch)
    expected = sum(gradient.flatten(1).square().sum(1) for gradient in gradients.values())
    torch.testing.assert_close(captured.scores(), expected, rtol=1e-5, atol=1e-10)


def test_opacus_norms_of_an_untied_llama() -> None:
    model = FAMILIES["llama"].build(tied=False)
    for name, module in list(model.named_modules()):  # Opacus knows torch's own norm
        if isinstance(module, LlamaRMSNorm):
            norm = torch.nn.RMSNorm(len(module.weight), eps=module.variance_epsilon, dtype=torch.float64)
            norm.weight.data.copy_(module.weight)
            model.set_submodule(name, norm)
    batch = make_batch(3, 6, ignored=0.3, padding_side="right")
    scores = Captured(model, batch).scores()

    private: Any = GradSampleModuleFastGradientClipping(model, batch_first=True, loss_reduction="sum")
    private.train()
    per_sample_losses(private, batch).sum().backward()
    torch.testing.assert_close(private.get_norm_sample().square(), scores, rtol=1e-8, atol=1e-12)
