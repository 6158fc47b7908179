"""dattri-llm: per-sample gradients as factors from hooks on one backward, then a weighted backward over the same graph.

Its in-step selection scores a sample by the inner product of its gradient with the sum of the batch's, and takes the
gradients of the worst out of what an ordinary backward has summed. Under ZeRO that sum is gone by then, so that here
scores become weights as in the other variants.
"""

from typing import Any, Literal

import deepspeed
import torch
from torch import Tensor
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from benchmarks.setting import Setting
from benchmarks.variants.step import Step, relative_weights
from presence_ds.influence import SampleLoss


def dattri(setting: Setting, *, scores: Literal["norms", "selection"] = "norms") -> Step:
    """Over all layers; parameters have to be whole: stages 1 and 2.

    Args:
        scores: norms are squared norms of per-sample gradients; selection are inner products with the batch's gradient.
    """
    # imported here, as it is an optional dependency
    from dattri_llm import REGISTER_ALL, DataSelectionCallback, HookManager, HookManagerConfig
    from dattri_llm.gradient import ops
    from dattri_llm.utils.module import rms_norm_module_kwargs

    engine, *_ = deepspeed.initialize(**setting.deepspeed(setting.model()))
    norms = {name: module for name, module in engine.module.named_modules() if isinstance(module, LlamaRMSNorm)}
    config = HookManagerConfig(
        linear_io=REGISTER_ALL,
        hook_types=dict.fromkeys(norms, "linear_io"),
        layer_types=dict.fromkeys(norms, "nn.RMSNorm"),
        module_kwargs={
            name: rms_norm_module_kwargs(normalized_shape=len(norm.weight), eps=norm.variance_epsilon)
            for name, norm in norms.items()
        },
    )
    manager = HookManager(engine.module, config=config)
    sample_loss = SampleLoss()
    parameters = list(engine.module.parameters())

    def scored(gradient: Any) -> Tensor:
        if scores == "selection":
            by_layer = DataSelectionCallback.compute_scores(gradient)
        else:
            by_layer = {
                name: ops.grad_norm_sq(gradient.data[name], gradient.layer_types[name], mode="auto")
                for name in gradient.layer_names
            }
        return torch.stack([of_layer.float() for of_layer in by_layer.values()]).sum(0)

    def step(ids: Tensor) -> Tensor:
        with manager.collect():
            # not engine(...), whose output would let DeepSpeed take the first of the two backwards for the step's
            losses = sample_loss(engine.module(input_ids=ids).logits, ids)
            torch.autograd.grad(losses.sum(), parameters, retain_graph=True)
            found = scored(manager.get_gradient())
        engine.backward((relative_weights(found) * losses).mean())
        engine.step()
        return found

    return step
