"""A trial run at start-up finds modules that mix samples, before any training step and before they spoil scores."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from presence_ds.capture import check_attribution
from presence_ds.engine.batch import is_encoder_decoder

if TYPE_CHECKING:
    from presence_ds.engine.engine import PresenceEngine

SAMPLES, POSITIONS = 3, 7


def try_out(engine: "PresenceEngine") -> None:
    """Run and score the model on a few random tokens, and leave out what cannot be attributed to samples.

    A model without an embedding to take the size of the vocabulary from is not tried.

    Raises:
        AttributionError: there is such a module, and strategy one_pass cannot train it.
    """
    scorer, vocabulary = engine.presence.scorer, _vocabulary(engine.module)
    if scorer is None or vocabulary is None:
        return
    encoder_decoder = is_encoder_decoder(engine.module)
    ids = torch.randint(vocabulary, (SAMPLES, POSITIONS), generator=torch.Generator().manual_seed(0)).to(engine.device)
    batch = {"input_ids": ids, "labels": ids} | ({"decoder_input_ids": ids} if encoder_decoder else {})

    def score(inner: Callable[..., Any], **batch: Any) -> torch.Tensor:
        scorer.score(inner, (), batch)
        return ids.new_zeros((), dtype=torch.float32)

    was_training = engine.module.training
    engine.eval()  # no dropout, and no activation checkpointing, which can hide uses of a parameter
    try:
        names = scorer.instrumentation.names
        scorer.leave_out(check_attribution(engine, names, vocabulary, engine.device, encoder_decoder=encoder_decoder))
        engine.forward_as(score, **batch)
    finally:
        engine.train(was_training)


def _vocabulary(model: nn.Module) -> int | None:
    embedding: Any = getattr(model, "get_input_embeddings", lambda: None)()
    return getattr(embedding, "num_embeddings", None)
