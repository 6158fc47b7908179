"""What a training batch holds beside the model's own inputs, and how a sample is taken out of one."""

from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from presence_ds.errors import ConfigError


def take_labels(model: nn.Module, batch: dict[str, Any]) -> tuple[dict[str, Any], Tensor]:
    """Part ``batch`` into the model's inputs and the labels ([B, T] int64, −100 ignored).

    An encoder-decoder model makes the decoder's inputs from the labels where the batch has none.

    Raises:
        ConfigError: there are no labels, or no inputs for the decoder.
    """
    inputs = dict(batch)
    labels = inputs.pop("labels", None)
    if labels is None:
        raise ConfigError("the batch has no labels: in training mode call engine(input_ids=..., labels=...)")
    if is_encoder_decoder(model) and "decoder_input_ids" not in inputs and "decoder_inputs_embeds" not in inputs:
        prepare = getattr(model, "prepare_decoder_input_ids_from_labels", None)
        if prepare is None:
            raise ConfigError(
                f"the batch has no decoder_input_ids, and {type(model).__name__} cannot make them from labels: give "
                f"both"
            )
        inputs["decoder_input_ids"] = prepare(labels=labels)
    return inputs, labels


def is_encoder_decoder(model: nn.Module) -> bool:
    """Whether labels stand where the decoder's outputs do, rather than one position further on."""
    return bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))


def takes(model: nn.Module, name: str) -> bool:
    """Whether the model's forward names an argument ``name``; that of the model inside, where adapters wrap it."""
    inside: Any = getattr(model, "get_base_model", lambda: model)()
    return name in signature(inside.forward).parameters


def logits_of(output: Any) -> Tensor:
    """``output.logits``, or the first element of a tuple."""
    logits: Tensor = output.logits if hasattr(output, "logits") else output[0]
    return logits


def replace_samples(
    args: tuple[Any, ...], batch: dict[str, Any], finite: Tensor
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Put a finite sample in the place of each that is not, so that a weight of 0 gives a gradient of 0 and not NaN.

    Args:
        args, batch: what the model takes; tensors whose first dimension is B are split into samples.
        finite: [B] bool on the host. Where it is nowhere true there is nothing to copy: all inputs but masks become 0.
    """
    kept = finite.nonzero().flatten().tolist()
    source = torch.tensor([index if good else next(iter(kept), index) for index, good in enumerate(finite.tolist())])

    def replace(value: Any, name: str = "") -> Any:
        if not isinstance(value, Tensor) or value.dim() == 0 or len(value) != len(finite):
            return value
        if not kept:
            return value if "mask" in name else torch.zeros_like(value)
        return value[source.to(value.device)]

    return tuple(replace(value) for value in args), {name: replace(value, name) for name, value in batch.items()}
