"""Floating-point operations of a model, from its layers' shapes: 2 per multiplication and addition of two matrices.

Only matrix products are counted, and attention as if it were not causal, as in appendix B of the PaLM paper
(Chowdhery et al. 2022), whose 6N + 12·L·H·Q·T per token is `Flops.model`.
"""

import re
from dataclasses import dataclass

from torch import nn
from transformers import PretrainedConfig
from transformers.pytorch_utils import Conv1D

from presence_ds.data import Lengths
from presence_ds.engine import PresenceConfig
from presence_ds.influence import select_parameters


@dataclass(frozen=True)
class Flops:
    """Per token of the text of a sample (`Lengths.row`).

    Attributes:
        weights: of all linear layers, the head included, in a forward pass: 2N.
        attention: of all products of queries, keys and values in a forward pass: 4·L·H·Q·T.
    """

    weights: float
    attention: float

    @property
    def forward(self) -> float:
        """Of a forward pass."""
        return self.weights + self.attention

    @property
    def input_gradients(self) -> float:
        """Of the backward sweep that forms no gradient of a weight."""
        return self.weights + 2 * self.attention

    @property
    def model(self) -> float:
        """Of a forward and a backward pass, which is what training needs by itself."""
        return self.forward + self.input_gradients + self.weights


def count_flops(model: nn.Module, config: PretrainedConfig, lengths: Lengths) -> Flops | None:
    """What ``model``, whose parameters are whole or on the meta device, does per token of the samples' text.

    None for models with other weights than those of linear layers and embeddings (experts, convolutions), and for
    encoder-decoder models whose layers have other names than those of T5 and BART: not counted.
    """
    config = config.get_text_config()
    heads = getattr(config, "num_attention_heads", None)
    if heads is None or any(parameter.ndim > 2 for parameter in model.parameters()):
        return None
    if config.is_encoder_decoder:
        return _count_encoder_decoder(model, lengths)
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    return Flops(
        weights=2.0 * sum(module.weight.numel() for module in model.modules() if isinstance(module, LINEAR)),
        attention=4.0 * config.num_hidden_layers * width * lengths.inputs,
    )


def _count_encoder_decoder(model: nn.Module, lengths: Lengths) -> Flops | None:
    """The encoder's layers see the inputs, the decoder's the targets, but for keys and values of cross-attention."""
    weights = attention = 0.0
    layers = {"encoder": 0, "decoder": 0, "cross": 0}
    for name, module in model.named_modules():
        if not isinstance(module, LINEAR):
            continue
        in_encoder, cross = "encoder." in name, CROSS.search(name) is not None
        sees_inputs = (in_encoder and not cross) or (KEYS_OR_VALUES.search(name) is not None and cross)
        weights += 2.0 * module.weight.numel() * (lengths.inputs if sees_inputs else lengths.targets)
        if KEYS.search(name):
            kind = "cross" if cross else "encoder" if in_encoder else "decoder"
            layers[kind] += 1
            queries = lengths.inputs if kind == "encoder" else lengths.targets
            keys = lengths.targets if kind == "decoder" else lengths.inputs
            attention += 4.0 * module.weight.shape[0] * queries * keys
    if 0 in layers.values() or layers["cross"] != layers["decoder"]:
        return None
    return Flops(weights=weights / lengths.row, attention=attention / lengths.row)


def scoring_flops(model: nn.Module, config: PresenceConfig, sequence_length: int) -> float:
    """What the self-influence costs per token, beside the passes that `added_flops` counts.

    Args:
        sequence_length: Positions whose gradients a score adds up: of a sample, or of a micro-batch under granularity
            microbatch and global_microbatch.
    """
    if config.signal == "loss":
        return 0.0
    selected = select_parameters(model, config.layers)
    products = [m.weight for m in model.modules() if isinstance(m, LINEAR) and m.weight in selected]
    lookups = [m.weight for m in model.modules() if isinstance(m, nn.Embedding) and m.weight in selected]
    tied = [weight for weight in lookups if any(weight is other for other in products)]
    if config.estimator == "exact":
        total = 0.0
        for weight in products:
            rows, cols = weight.shape
            total += 2.0 * min(rows * cols, sequence_length * (rows + cols))
        return total + sum(2.0 * sequence_length * weight.shape[1] for weight in tied)
    k = config.projection_dim
    keeps_sketches = config.compares_gradients or config.granularity == "global_microbatch"
    total = 0.0
    for weight in products:
        rows, cols = weight.shape
        total += _projection(rows, k) + _projection(cols, k) + 2.0 * min(rows, k) * min(cols, k)
    for weight in lookups if keeps_sketches else tied:
        rows, cols = weight.shape
        total += _projection(cols, k) + (2.0 * k * min(cols, k) if rows > k else 0.0)
    return total


def added_flops(flops: Flops, config: PresenceConfig, scoring: float, *, checkpointing: bool) -> float:
    """What PRESENCE adds to a step per token: the score pass of two_pass, if any, and ``scoring``."""
    if config.strategy == "one_pass":
        return scoring
    if config.signal == "loss":
        return flops.forward
    again = flops.forward if checkpointing else 0.0
    return flops.forward + flops.input_gradients + again + scoring


def _projection(size: int, k: int) -> float:
    return 2.0 * size * k if size > k else 0.0


LINEAR = (nn.Linear, Conv1D)
CROSS = re.compile(r"\.(EncDecAttention|encoder_attn)\.")  # of T5 and its kin, and of BART
KEYS = re.compile(r"\.k(_proj)?$")
KEYS_OR_VALUES = re.compile(r"\.[kv](_proj)?$")
