"""Documents of one sample that do not see each other: what tells a model where they end, and whether it heeds it.

Models of transformers make a mask of packed documents by themselves where ``position_ids`` begin anew and neither an
attention mask nor a cache of keys is given. Attention kernels of the flash kind do so for batches of one sample only;
of several they have to be told the lengths.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_flash_attention_utils import prepare_fa_kwargs_from_position_ids

from presence_ds.capture import Documents
from presence_ds.engine.batch import DOCUMENTS, takes, vocabulary_size
from presence_ds.engine.separation import check_separation
from presence_ds.engine.trial import Engine
from presence_ds.errors import ConfigError
from presence_ds.transfers import to_device

FIELD = "data.document_mask is true"
TRIAL = ([3, 2, 4], [2, 6, 1], [4, 5])  # lengths of the documents in the samples of a trial
INPUTS = ("input_ids", "labels", "attention_mask")


def model_inputs(model: nn.Module, batch: dict[str, Any], device: torch.device, *, by_document: bool) -> dict[str, Any]:
    """What ``model`` takes of a batch of samples, its tensors on ``device``.

    Args:
        batch: of a `PackedDataset`, on the host.
        by_document: whether ``document_indices`` are looked at; they stay on the host.
    """
    inputs: dict[str, Any] = {name: batch[name] for name in INPUTS if name in batch}
    if "position_ids" in batch:
        inputs |= document_inputs(model, batch["position_ids"])
    looked_at = ["document_indices"] if by_document else []
    return on_device(inputs, device) | {name: batch[name] for name in looked_at}


def document_inputs(model: nn.Module, position_ids: Tensor) -> dict[str, Any]:
    """What ``model`` takes beside token ids to keep documents apart; tensors are on the device of ``position_ids``.

    Args:
        position_ids: [B, T] int64, on the host; 0 where a document begins.
    """
    inputs: dict[str, Any] = {"position_ids": position_ids}
    if "flash" in (getattr(getattr(model, "config", None), "_attn_implementation", None) or ""):
        starts, longest = prepare_fa_kwargs_from_position_ids(position_ids)
        inputs |= dict(zip(("cu_seq_lens_q", "cu_seq_lens_k"), starts, strict=True))
        inputs |= dict.fromkeys(("max_length_q", "max_length_k"), int(longest[0]))
    return inputs


def check_takes_positions(model: nn.Module) -> None:
    """Raise `ConfigError` if the model has no ``position_ids`` to be told of documents by."""
    if not takes(model, "position_ids"):
        raise ConfigError(
            f"{FIELD}, and {type(model).__name__} takes no position_ids, from which models of transformers tell the "
            f"documents of a sample apart: leave it out, or use another model"
        )


def check_document_mask(engine: Engine) -> None:
    """Run the model on a few random tokens, to see whether it keeps documents apart; on every rank at once.

    Raises:
        ConfigError: it does not.
    """
    model, device = engine.module, engine.device
    check_takes_positions(model)
    indices = torch.stack([torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)) for sizes in TRIAL])
    position_ids = torch.stack([torch.cat([torch.arange(size) for size in sizes]) for sizes in TRIAL])
    vocabulary = vocabulary_size(model) or 1  # `check_separation` says so where there is none
    ids = torch.randint(vocabulary, indices.shape, generator=torch.Generator().manual_seed(0))
    batch = on_device({"input_ids": ids, "labels": ids} | document_inputs(model, position_ids), device)
    check_separation(engine, batch | {DOCUMENTS: Documents([indices], device)}, FIELD)


def on_device(inputs: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """``inputs`` with their tensors on ``device``, for which nothing waits."""
    return {name: to_device(value, device) if isinstance(value, Tensor) else value for name, value in inputs.items()}
