"""Whether documents in one row are kept apart: a trial changes some of them and looks at the logits of others."""

import warnings
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from presence_ds.engine.batch import logits_of, take_labels, vocabulary_size, without_cache
from presence_ds.engine.causality import APART, LARGEST_SHARE, other_tokens, share_changed
from presence_ds.engine.modes import modes_restored
from presence_ds.engine.trial import Engine
from presence_ds.errors import ConfigError

TOKENS = ("input_ids", "decoder_input_ids")
NEAR = 8  # positions from its beginning in which a document sees most of the one before, where sight is short
POSITIONS = 256  # of which logits are compared: a vocabulary of float64 each


@torch.no_grad()
def check_separation(engine: Engine, batch: dict[str, Any], field: str, group: dist.ProcessGroup | None = None) -> bool:
    """Run the model twice, with the tokens of every second document of every second row changed in between.

    Rows are those of several documents, and the ones between stay as they are: where their logits change too, samples
    touch each other, and nothing is told. A model without an embedding to take the size of the vocabulary from is not
    tried, nor a batch without token ids: a warning says so.

    Args:
        engine: runs the model, in evaluation mode here: nothing but the inputs changes.
        batch: what the model takes, with ``labels`` and ``documents``.
        field: what asks for it, to begin the message with.
        group: ranks that have batches of their own, to agree with.

    Returns:
        Whether it is done: False where there is no row of several documents on any rank, which tells nothing.

    Raises:
        ConfigError: on every rank alike, logits of a document depend on the tokens of another one.
    """
    model = engine.module
    inputs, _, documents = take_labels(model, batch)
    assert documents is not None
    vocabulary = vocabulary_size(model)
    if vocabulary is None or "input_ids" not in inputs:
        if not dist.is_initialized() or dist.get_rank() == 0:
            warnings.warn(
                f"{field}, and nothing tells whether {type(model).__name__} keeps the documents of a sample apart: "
                f"that is tried with token ids that are given as input_ids=..., and a model that names its embedding "
                f"(get_input_embeddings)",
                stacklevel=2,
            )
        return True
    inputs |= without_cache(model)
    several = torch.bincount(documents.rows, minlength=documents.num_rows) > 1
    untouched = (several.cumsum(0) % 2 == 0)[documents.rows]  # the first row of several is looked at
    odd = documents.numbers % 2 == 1  # the first document of a row changes: there is one before each looked at
    begins = _beginnings(documents.targets.ids)
    looked_at = [
        (documents.targets.spread(chosen) & begins).nonzero()[:POSITIONS].unbind(1)
        for chosen in (odd & ~untouched, untouched)
    ]
    there = torch.tensor(float(len(looked_at[0][0])), device=documents.rows.device)
    if group is not None:
        dist.all_reduce(there, dist.ReduceOp.MAX, group=group)
    if not there:
        return False

    def logits_with(changed: Tensor) -> list[Tensor]:
        """What is looked at, where the tokens of documents are ``changed`` ([P] bool): [n, V] float64 each."""
        given = dict(inputs)
        for name in TOKENS:
            if name in given:
                ids = given[name]
                places = documents.places(ids.shape)
                given[name] = torch.where(places.spread(changed), other_tokens(ids, vocabulary), ids)
        logits = logits_of(engine(**given))
        return [logits[where].double() for where in looked_at]

    with modes_restored(engine):
        engine.eval()
        before, after = logits_with(torch.zeros_like(odd)), logits_with(~(odd | untouched))
    shares = torch.tensor([share_changed(*pair) for pair in zip(before, after, strict=True)])
    if group is not None:
        shares = shares.to(documents.rows.device)
        dist.all_reduce(shares, dist.ReduceOp.MAX, group=group)
    share, others = shares.tolist()
    if share > LARGEST_SHARE and others <= APART:
        raise ConfigError(
            f"{field}, and {type(model).__name__} lets the documents of a sample see each other: its layers do not "
            f"heed position_ids that begin anew, or a mask that keeps them apart: leave it out, or use another model"
        )
    return True


def _beginnings(ids: Tensor) -> Tensor:
    """Whether a position is among the first `NEAR` of its document, [B, T] bool; ``ids`` [B, T] number documents."""
    places = torch.arange(ids.shape[1], device=ids.device)
    begins = torch.ones_like(ids, dtype=torch.bool)
    begins[:, 1:] = ids[:, 1:] != ids[:, :-1]
    return places - torch.where(begins, places, 0).cummax(1).values < NEAR
