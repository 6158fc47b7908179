"""What a training batch holds beside the model's own inputs, and how a sample is taken out of one."""

from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from presence_ds.capture import Documents
from presence_ds.errors import ConfigError

DOCUMENTS = "documents"  # of a batch: what `number_documents` has made of it


def number_documents(
    model: nn.Module, indices: Tensor | None, decoder_indices: Tensor | None, device: torch.device
) -> Documents:
    """The documents of a micro-batch, from ``document_indices`` and ``decoder_document_indices`` ([B, T] int64).

    They are looked at on the host: on a device they are waited for. ``device`` is where ``model`` computes.

    Raises:
        ConfigError: they are missing, or do not number documents.
    """
    needed = {"document_indices": indices}
    if is_encoder_decoder(model):
        needed["decoder_document_indices"] = decoder_indices
    for name, value in needed.items():
        if value is None:
            raise ConfigError(
                f"presence.granularity is document, and the batch has no {name}: give [B, T] int64, which document of "
                f"its row every position is of, from 0 on, and -1 at padding"
            )
    found = [value for value in needed.values() if value is not None]
    return Documents(found, device)


def take_labels(model: nn.Module, batch: dict[str, Any]) -> tuple[dict[str, Any], Tensor, Documents | None]:
    """Part ``batch`` into the model's inputs, the labels ([B, T] int64, −100 ignored), and documents, if there are any.

    An encoder-decoder model makes the decoder's inputs from the labels where the batch has none.

    Raises:
        ConfigError: there are no labels, or no inputs for the decoder.
    """
    inputs = dict(batch)
    documents = inputs.pop(DOCUMENTS, None)
    labels = inputs.pop("labels", None)
    if labels is None:
        raise ConfigError("the batch has no labels: in training mode call engine(input_ids=..., labels=...)")
    if is_encoder_decoder(model) and "decoder_input_ids" not in inputs and "decoder_inputs_embeds" not in inputs:
        if documents is not None:
            raise ConfigError(
                "the batch has no decoder_input_ids, and labels of several documents in a row do not make them: give "
                "both, with the start token before every document"
            )
        prepare = getattr(model, "prepare_decoder_input_ids_from_labels", None)
        if prepare is None:
            raise ConfigError(
                f"the batch has no decoder_input_ids, and {type(model).__name__} cannot make them from labels: give "
                f"both"
            )
        inputs["decoder_input_ids"] = prepare(labels=labels)
    return inputs, labels, documents


def is_encoder_decoder(model: nn.Module) -> bool:
    """Whether labels stand where the decoder's outputs do, rather than one position further on."""
    return bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))


def takes(model: nn.Module, name: str) -> bool:
    """Whether the model's forward names an argument ``name``; that of the model inside, where adapters wrap it."""
    inside: Any = getattr(model, "get_base_model", lambda: model)()
    return name in signature(inside.forward).parameters


def without_cache(model: nn.Module) -> dict[str, Any]:
    """Arguments by which a forward keeps no keys and values to go on from: they hide that documents are packed."""
    return {"use_cache": False} if takes(model, "use_cache") else {}


def vocabulary_size(model: nn.Module) -> int | None:
    """Rows of the embedding of the model's inputs, where it tells which that is."""
    embedding: Any = getattr(model, "get_input_embeddings", lambda: None)()
    return getattr(embedding, "num_embeddings", None)


def logits_of(output: Any) -> Tensor:
    """``output.logits``, or the first element of a tuple."""
    logits: Tensor = output.logits if hasattr(output, "logits") else output[0]
    return logits


def replace_samples(
    args: tuple[Any, ...], batch: dict[str, Any], finite: Tensor
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Put a finite sample in the place of each that is not, so that a weight of 0 gives a gradient of 0 and not NaN.

    Args:
        args, batch: what the model takes; tensors whose first dimension is B are split into samples. With documents
            those of [B, T, …] have one in the place of another, cut or over and over.
        finite: [B] bool on the host, or of documents. Where it is nowhere true, or of documents without a position,
            there is nothing to copy: all inputs but masks become 0.
    """
    documents: Documents | None = batch.get(DOCUMENTS)
    if documents is None:
        size, kept = len(finite), finite.nonzero().flatten().tolist()
    elif documents.have_positions(finite):
        return documents.replaced(args, finite), documents.replaced(batch, finite)
    else:
        size, kept = documents.num_rows, []
    source = torch.tensor([index if good else next(iter(kept), index) for index, good in enumerate(finite.tolist())])

    def replace(value: Any, name: str = "") -> Any:
        if not isinstance(value, Tensor) or value.dim() == 0 or len(value) != size:
            return value
        if not kept:
            return value if "mask" in name else torch.zeros_like(value)
        return value[source.to(value.device)]

    return tuple(replace(value) for value in args), {name: replace(value, name) for name, value in batch.items()}
