"""Floating-point operations of a micro-step, as torch counts them in a run of the real code without any numbers in it.

Only matrix products are counted, 2 for a multiplication and an addition, and attention as if it were not causal: of a
decoder's plain training that is the 6N + 12·L·H·Q·T per token of appendix B of the PaLM paper (Chowdhery et al. 2022).
"""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import PretrainedConfig

from presence_ds.data import Lengths
from presence_ds.engine import PresenceConfig
from presence_ds.trainer.building.construction import build_empty_model
from presence_ds.trainer.building.model_config import ModelConfig
from presence_ds.trainer.estimate.activations import micro_step_peak


def training_flops(config: PretrainedConfig, model: ModelConfig, lengths: Lengths) -> float | None:
    """Of a forward and a backward pass per token of text, which is what training needs by itself; as `step_flops`."""
    return step_flops(config, replace(model, activation_checkpointing=False), None, lengths)


class Flops(NamedTuple):
    """Per token of text, each as `step_flops`.

    Attributes:
        training: as `training_flops`.
        plain: of the micro-steps as they are trained, with what activation checkpointing does twice.
        scored: the same with PRESENCE.
    """

    training: float | None
    plain: float | None
    scored: float | None

    @property
    def scoring(self) -> float | None:
        """What PRESENCE adds."""
        return None if self.scored is None or self.plain is None else self.scored - self.plain

    @property
    def scoring_share(self) -> float | None:
        """What part of all that is computed PRESENCE adds."""
        return None if self.scored is None or self.scoring is None else self.scoring / self.scored


def count_flops(
    config: PretrainedConfig, model: ModelConfig, presence: PresenceConfig, lengths: Lengths, samples: int
) -> Flops:
    """Of micro-steps of ``samples`` samples."""
    training = training_flops(config, model, lengths)
    plain = step_flops(config, model, None, lengths) if model.activation_checkpointing else training
    return Flops(training, plain, step_flops(config, model, presence, lengths, samples))


def step_flops(
    config: PretrainedConfig,
    model: ModelConfig,
    presence: PresenceConfig | None,
    lengths: Lengths,
    samples: int = 1,
) -> float | None:
    """Of a micro-step of ``samples`` samples, per token of their text (`Lengths.row`).

    None for models with other weights than matrices and vectors (experts, convolutions), whose products depend on the
    numbers or are not in that count, and for code that comes with a model and does not run without numbers.

    Args:
        config: what the model is built from.
        presence: the method; None: plain training with the same loss.
    """
    try:
        empty = build_empty_model(config, replace(model, attention="eager"), torch.float32)  # whose products show
        if any(parameter.ndim > 2 for parameter in empty.parameters()):
            return None
        for module in empty.modules():
            if "layerdrop" in vars(module):  # of BART and its kin: what a step leaves out by chance counts
                vars(module)["layerdrop"] = 0.0
        with FlopCounterMode(display=False) as counter:
            micro_step_peak(empty, presence, *empty_batch(lengths, samples))
    except Exception:
        return None
    return counter.get_total_flops() / samples / lengths.row


def empty_batch(lengths: Lengths, samples: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and labels, int64 [``samples``, T] on the meta device."""
    return (
        torch.empty(samples, lengths.inputs, dtype=torch.int64, device="meta"),
        torch.empty(samples, lengths.targets, dtype=torch.int64, device="meta"),
    )
