"""torch.func: every per-sample gradient at once, B times the memory of the parameters, then their weighted sum."""

import deepspeed
import torch
from torch import Tensor
from torch.func import functional_call, grad
from torch.nn import functional as F

from benchmarks.setting import Setting
from benchmarks.variants.step import Step, relative_weights


class _SampleLoss(torch.nn.Module):
    """Of one sample: ids [T] to its loss. (PRESENCE's chunked loss has no rule for vmap.)"""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> Tensor:
        logits = self.model(input_ids=ids.unsqueeze(0)).logits[0]
        return F.cross_entropy(logits[:-1].float(), ids[1:])


def vmap(setting: Setting) -> Step:
    """The weighted sum reaches ZeRO's hooks as the gradient of an inner product: stages 1 and 2."""
    model = setting.model()
    model.set_attn_implementation("eager")  # the others' masks have no rule for vmap
    model.config.pad_token_id = None
    engine, *_ = deepspeed.initialize(**setting.deepspeed(model))
    sample_loss = _SampleLoss(engine.module)

    def loss(parameters: dict[str, Tensor], ids: Tensor) -> Tensor:
        return functional_call(sample_loss, parameters, (ids,))

    def step(ids: Tensor) -> Tensor:
        detached = {name: parameter.detach() for name, parameter in sample_loss.named_parameters()}
        gradients = torch.func.vmap(grad(loss), in_dims=(None, 0))(detached, ids)
        norms = [gradient.flatten(1).float().square().sum(1) for gradient in gradients.values()]
        scores = torch.stack(norms).sum(0)
        weights = relative_weights(scores) / len(scores)
        inner = torch.zeros((), device=ids.device)
        for name, parameter in sample_loss.named_parameters():
            gradient = weights.to(parameter.dtype) @ gradients.pop(name).flatten(1)
            inner = inner + parameter.flatten() @ gradient
        engine.backward(inner)
        engine.step()
        return scores

    return step
