"""Runs on every rank of a pool: training with dropout, beside plain autograd from the same random state."""

import torch
import torch.distributed as dist
from torch import Tensor
from transformers import PreTrainedModel

from tests.engine.behaviour import start
from tests.engine.training import data, full_parameters
from tests.models import tiny_model

SEED = 7


def differences(strategy: str, stage: int, accumulation_steps: int, checkpointing: bool) -> tuple[float, float, bool]:
    """Of the parameters after a step with uniform weights: from plain training, from training without dropout.

    And whether the random state afterwards is the one that plain training leaves.
    """
    (step,) = data(1, accumulation_steps)
    rank = dist.get_rank()
    model = dropout_model()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    presence = {"signal": "uniform", "strategy": strategy}
    engine = start(model, stage=stage, accumulation_steps=accumulation_steps, presence=presence)
    torch.manual_seed(SEED + rank)
    for micro_batch in step:
        ids = micro_batch[rank]
        engine.backward(engine(input_ids=ids, labels=ids))
        engine.step()
    state, found = torch.get_rng_state(), full_parameters(engine)
    expected, expected_state = _plain(step, rank, dropout=True)
    without, _ = _plain(step, rank, dropout=False)
    return _largest(found, expected), _largest(found, without), torch.equal(state, expected_state)


def _plain(step: Tensor, rank: int, *, dropout: bool) -> tuple[list[Tensor], Tensor]:
    model = dropout_model().train(dropout)
    torch.manual_seed(SEED + rank)
    for micro_batch in step:
        (model(input_ids=micro_batch[rank], labels=micro_batch[rank]).loss / len(step)).backward()
    state = torch.get_rng_state()
    for parameter in model.parameters():
        dist.all_reduce(parameter.grad)
        parameter.data -= 0.5 * parameter.grad / dist.get_world_size()  # the learning rate of `optimizer_for`
    return [parameter.detach() for parameter in model.parameters()], state


def dropout_model() -> PreTrainedModel:
    return tiny_model("gpt2", tied=True, dropout=0.2)


def _largest(ours: list[Tensor], theirs: list[Tensor]) -> float:
    return max((a - b).abs().max().item() for a, b in zip(ours, theirs, strict=True))
