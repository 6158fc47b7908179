"""The naive way: every sample's gradient from a batch of one, then an ordinary weighted step."""

import deepspeed
import torch
from torch import Tensor

from benchmarks.setting import Setting
from benchmarks.variants.step import Step, relative_weights
from presence_ds.influence import SampleLoss


def naive_loop(setting: Setting) -> Step:
    """Gradients are taken past ZeRO's hooks, so parameters have to be whole: stages 1 and 2."""
    engine, *_ = deepspeed.initialize(**setting.deepspeed(setting.model()))
    sample_loss = SampleLoss()
    parameters = list(engine.module.parameters())

    def self_influence(ids: Tensor) -> Tensor:
        loss = sample_loss(engine.module(input_ids=ids).logits, ids).sum()
        gradients = torch.autograd.grad(loss, parameters)
        return torch.stack([gradient.float().square().sum() for gradient in gradients]).sum()

    def step(ids: Tensor) -> Tensor:
        scores = torch.stack([self_influence(sample) for sample in ids.split(1)])
        losses = sample_loss(engine(input_ids=ids).logits, ids)
        engine.backward((relative_weights(scores) * losses).mean())
        engine.step()
        return scores

    return step
