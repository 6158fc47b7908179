"""Opacus' fast gradient clipping: ghost norms from one backward, then a weighted backward over the same graph."""

from typing import Any

import deepspeed
import torch
from torch import Tensor
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from benchmarks.setting import Setting
from benchmarks.variants.step import Step, relative_weights
from presence_ds.influence import SampleLoss


def opacus(setting: Setting) -> Step:
    """Its norms are those of an untied model; parameters have to be whole: stages 1 and 2."""
    # imported here, as it is a development dependency
    from opacus.grad_sample import GradSampleModuleFastGradientClipping  # type: ignore[import-untyped]

    model: Any = GradSampleModuleFastGradientClipping(_with_torch_norms(setting), loss_reduction="sum")
    engine, *_ = deepspeed.initialize(**setting.deepspeed(model))
    sample_loss = SampleLoss()
    parameters = list(model.parameters())

    def step(ids: Tensor) -> Tensor:
        model.enable_hooks()
        # not engine(...), whose output would let DeepSpeed take the first of the two backwards for the step's
        losses = sample_loss(model(input_ids=ids).logits, ids)
        torch.autograd.grad(losses.sum(), parameters, retain_graph=True)
        scores = model.get_norm_sample().float().square()
        model.disable_hooks()
        engine.backward((relative_weights(scores) * losses).mean())
        engine.step()
        return scores

    return step


def _with_torch_norms(setting: Setting) -> torch.nn.Module:
    """The model with torch's own RMSNorm, the one that Opacus has a rule for."""
    model = setting.model()
    for name, module in list(model.named_modules()):
        if isinstance(module, LlamaRMSNorm):
            norm = torch.nn.RMSNorm(len(module.weight), eps=module.variance_epsilon)
            model.set_submodule(name, norm)
    return model
