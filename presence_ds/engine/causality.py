"""Whether a model sees what it is to predict: a trial changes the end of a sample and looks at the logits before."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from presence_ds.engine.batch import logits_of
from presence_ds.errors import ConfigError

LENGTH = 7
CUTS = (1, 4, 6)  # where each of the first samples of the trial changes
UNTOUCHED, REPLACED = 5, 4  # samples after them that stay as they are, and that change as a whole
NOISE = 1e-5  # relative to the largest logit: kernels round by the number of tokens that an expert gets
LARGEST_SHARE = 0.2  # of logits before a cut that may change: such rounding, seen in narrow numbers
APART = 0.05  # share of the logits of untouched samples below which samples do not touch each other


@torch.no_grad()
def check_causality(
    forward: Callable[..., Any],
    model: nn.Module,
    vocabulary: int,
    device: torch.device,
    *,
    encoder_decoder: bool = False,
) -> None:
    """Run ``forward(input_ids=...)`` twice, with the tokens from a position on changed in between.

    Every sample changes from another position on, so that attention that looks back over a part of the sample alone (a
    prefix, a window in both directions) is seen too. A model that lets its samples touch each other (experts of limited
    capacity, a normalisation over the batch) changes its logits everywhere: it is warned of, by name.

    Args:
        forward: runs ``model`` on [12, 7] int64 token ids, in evaluation mode: nothing but the ids may change.
        model: named in the messages.
        vocabulary: token ids are drawn below this.
        device: where the model computes.
        encoder_decoder: whether the tokens are the decoder's (``decoder_input_ids``); the encoder's stay.

    Raises:
        ConfigError: logits before a position depend on the tokens from there on.
    """
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(vocabulary, (len(CUTS) + UNTOUCHED + REPLACED, LENGTH), generator=generator)
    changed = other_tokens(ids, vocabulary)
    changed[-REPLACED:] = changed[0, 0]  # all of one kind: they crowd an expert of limited capacity
    cuts = torch.tensor(CUTS + (LENGTH,) * UNTOUCHED + (0,) * REPLACED)[:, None]
    logits = []
    for trial in (ids, torch.where(torch.arange(LENGTH) < cuts, ids, changed)):
        tokens = trial.to(device)
        inputs = (
            {"input_ids": ids.to(device), "decoder_input_ids": tokens} if encoder_decoder else {"input_ids": tokens}
        )
        logits.append(logits_of(forward(**inputs))[:, -LENGTH:].double().cpu())
    shares = [share_changed(*(one[index, :cut] for one in logits)) for index, cut in enumerate(CUTS)]
    others = share_changed(*(one[len(CUTS) :][:UNTOUCHED] for one in logits))
    name, where = type(model).__name__, "the decoder's " if encoder_decoder else ""
    if max(shares) > LARGEST_SHARE and others <= APART:
        raise ConfigError(
            f"model {name}: {where}logits of a position change with the tokens after it, so it sees what it is to "
            f"predict (an encoder, or attention in both directions): it must be causal, such as with is_decoder true"
        )
    if others > APART and (not dist.is_initialized() or dist.get_rank() == 0):
        warnings.warn(
            f"model {name}: the logits of a sample change with the other samples of its batch (experts of limited "
            f"capacity, or a normalisation over the batch), so a position may see what it is to predict, and scores of "
            f"single samples are not theirs alone",
            stacklevel=2,
        )


def other_tokens(ids: Tensor, vocabulary: int) -> Tensor:
    """Another token in the place of each; of a vocabulary of one there is none."""
    return (ids + max(1, vocabulary // 2)) % vocabulary


def share_changed(before: Tensor, after: Tensor) -> float:
    """Share of the logits that differ by more than noise; what is not finite tells nothing."""
    known = before.isfinite() & after.isfinite()
    if not known.any():
        return 0.0
    before, after = before[known], after[known]
    return ((after - before).abs() > NOISE * before.abs().max()).double().mean().item()
