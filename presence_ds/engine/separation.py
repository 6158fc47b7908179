"""Whether documents in one row are kept apart: a trial changes some of them and looks at the logits of others."""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from presence_ds.engine.batch import logits_of, take_labels, takes
from presence_ds.engine.causality import APART, LARGEST_SHARE, share_changed
from presence_ds.errors import ConfigError

TOKENS = ("input_ids", "decoder_input_ids")
NEAR = 8  # positions from its beginning in which a document sees most of the one before, where sight is short
POSITIONS = 256  # of which logits are compared: a vocabulary of float64 each


@torch.no_grad()
def check_separation(
    forward: Callable[..., Any],
    model: nn.Module,
    batch: dict[str, Any],
    field: str,
    group: dist.ProcessGroup | None = None,
) -> None:
    """Run ``forward`` twice, with the tokens of every second document of every second row changed in between.

    The rows between stay as they are: where their logits change too, samples touch each other, and nothing is told. A
    model without an embedding to take the size of the vocabulary from is not tried, nor a batch without token ids.

    Args:
        forward: runs ``model`` in evaluation mode: nothing but the inputs may change.
        batch: what it takes, with ``labels`` and ``documents``.
        field: what asks for it, to begin the message with.
        group: ranks that have batches of their own, to agree with.

    Raises:
        ConfigError: on every rank alike, logits of a document depend on the tokens of another one.
    """
    inputs, _, documents = take_labels(model, batch)
    assert documents is not None
    embedding: Any = getattr(model, "get_input_embeddings", lambda: None)()
    vocabulary = getattr(embedding, "num_embeddings", None)
    if vocabulary is None or "input_ids" not in inputs:
        return
    if takes(model, "use_cache"):  # keys and values to go on from would hide from the model that documents are packed
        inputs["use_cache"] = False
    # The first document of a row changes, so that there is one before each that is looked at.
    untouched, odd = documents.rows % 2 == 1, documents.numbers % 2 == 1
    begins = _beginnings(documents.targets.ids)
    looked_at = [
        (documents.targets.spread(chosen) & begins).nonzero()[:POSITIONS].unbind(1)
        for chosen in (odd & ~untouched, untouched)
    ]

    def logits_with(changed: Tensor) -> list[Tensor]:
        """What is looked at, where the tokens of documents are ``changed`` ([P] bool): [n, V] float64 each."""
        given = dict(inputs)
        for name in TOKENS:
            if name in given:
                ids = given[name]
                other = (ids + max(1, vocabulary // 2)) % vocabulary
                given[name] = torch.where(documents.places(ids.shape).spread(changed), other, ids)
        logits = logits_of(forward(**given))
        return [logits[places].double() for places in looked_at]

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


def _beginnings(ids: Tensor) -> Tensor:
    """Whether a position is among the first `NEAR` of its document, [B, T] bool; ``ids`` [B, T] number documents."""
    places = torch.arange(ids.shape[1], device=ids.device)
    begins = torch.ones_like(ids, dtype=torch.bool)
    begins[:, 1:] = ids[:, 1:] != ids[:, :-1]
    return places - torch.where(begins, places, 0).cummax(1).values < NEAR
