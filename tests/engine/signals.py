"""Runs on every rank of a pool: signals that compare gradients of samples on different ranks."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from presence_ds.reweighting import MicroBatch, Reweighting, ReweightingConfig, ScheduleConfig, WeightingConfig
from presence_ds.reweighting.gram import Gradients
from tests.engine.behaviour import start
from tests.engine.training import LENGTH, MICRO_BATCH, data
from tests.models import VOCABULARY, tiny_model, tokens

REFERENCE_BATCHES = 3


def log_weights(presence: dict[str, Any], stage: int) -> tuple[Tensor, Tensor]:
    """Log weights of one step's samples over all ranks by the engine, and their signal from exact gradients.

    The projections are as wide as the model, or nearly, so that only the joint projection is an approximation.
    """
    ranks, rank = dist.get_world_size(), dist.get_rank()
    (step,) = data(1, 1)
    presence = {"schedule": {"kind": "constant", "tau_direct": 0.5}} | presence
    engine = start(stage=stage, presence=presence)
    references = tokens(REFERENCE_BATCHES, ranks, MICRO_BATCH, LENGTH, seed=8)
    references[-1, 0] = step[0, 1]  # otherwise all alignments are alike, within what the joint projection can tell
    if presence["signal"] == "alignment":
        for batch in references:
            engine.observe_reference(input_ids=batch[rank], labels=batch[rank])
    ids = step[0, rank]
    engine.backward(engine(input_ids=ids, labels=ids))
    engine.step()
    everywhere = [torch.empty_like(engine.presence.weights) for _ in range(ranks)]
    dist.all_gather(everywhere, engine.presence.weights)

    gradients = _gradients(step.flatten(0, 2))
    if presence["signal"] == "leverage":
        # F = (1/n) Gᵀ G = V diag(σ²/n) Vᵀ with the singular values σ of G, and g_i = Σ_r U_ir σ_r v_r
        u, sigma, _ = torch.linalg.svd(gradients, full_matrices=False)
        ridge = presence["damping"] * gradients.square().sum(1).mean() / len(gradients)
        signal = ((u * sigma).square() / (sigma.square() / len(gradients) + ridge)).sum(1)
    else:
        decay, mean, weight = 0.9, torch.zeros_like(gradients[0]), 0.0
        for batch in references:
            mean = decay * mean + (1 - decay) * _gradients(batch.flatten(0, 1)).mean(0)
            weight = decay * weight + (1 - decay)
        signal = gradients @ (mean / weight)
    return torch.cat(everywhere).double().log(), signal


def comparisons(count: int, width: int) -> dict[str, Any]:
    """Leverage and near-duplicates of ``count`` gradients on each rank, one of which is not finite, and by definition.

    Of all ranks' together, [2 · count, width], by an explicit inverse and by all pairs.
    """
    ranks, rank = dist.get_world_size(), dist.get_rank()
    g = torch.randn(ranks, count, width, generator=torch.Generator().manual_seed(count))
    g[1, -1] = 2 * g[0, 0]
    g[1, 0] = torch.nan
    local, counted = g[rank], g.isfinite().all(2).flatten()
    found = Gradients(local, counted, None)
    kept = g.flatten(0, 1)[counted].double()
    ridge = 0.3 * kept.square().sum(1).mean() / len(kept)
    inverse = torch.linalg.inv(kept.T @ kept / len(kept) + ridge * torch.eye(width))
    cosines = torch.nn.functional.cosine_similarity(kept[:, None], kept[None], dim=2).fill_diagonal_(0.0)
    return {
        "leverage": (found.leverage(0.3), ((kept @ inverse) * kept).sum(1)),
        "near duplicates": (found.near_duplicate_share(0.99).item(), (cosines > 0.99).any(1).double().mean().item()),
        "weights": _weights_by_leverage(local),
    }


def _weights_by_leverage(local: Tensor) -> Tensor:
    """Of all ranks' samples."""
    schedule = ScheduleConfig(kind="constant", tau_direct=0.5)
    weighting = WeightingConfig(kind="softmax")
    target = Reweighting(
        ReweightingConfig(signal="leverage", schedule=schedule, weighting=weighting), running=False, group=None
    )
    ones = torch.ones(len(local))
    target.collect(MicroBatch(ones, ones.bool(), ones.long(), local.square().sum(1), features=local))
    own = target.finish(1).local
    everywhere = own.new_empty(dist.get_world_size(), len(own))
    dist.all_gather(list(everywhere.unbind()), own)
    return everywhere


def near_duplicates(stage: int) -> float:
    """Share of near-duplicates where rank 1's last sample is rank 0's first, but for its last token."""
    ranks, rank = dist.get_world_size(), dist.get_rank()
    ids = tokens(ranks, MICRO_BATCH, LENGTH, seed=2)
    ids[1, -1] = ids[0, 0]
    ids[1, -1, -1] = (ids[0, 0, -1] + 1) % VOCABULARY
    engine = start(stage=stage, presence={"near_duplicates": 0.8})
    engine.backward(engine(input_ids=ids[rank], labels=ids[rank]))
    engine.step()
    share: float = engine.presence.statistics["near_duplicate_share"]
    return share


def references() -> tuple[Tensor, Tensor]:
    """The reference gradient after a micro-batch one of whose samples has no targets, and after one without it."""
    ids = tokens(MICRO_BATCH, LENGTH, seed=3)
    labels = ids.clone()
    labels[1, 1:] = -100
    found = []
    for kept in ([0, 1, 2], [0, 2]):
        engine = start(presence={"signal": "alignment"})
        engine.observe_reference(input_ids=ids[kept], labels=labels[kept])
        found.append(engine.presence.state_dict()["reference"]["sum"])
    return found[0], found[1]


def _gradients(ids: Tensor) -> Tensor:
    """Per-sample gradients over all parameters, [n, p] float64."""
    model = tiny_model("llama", tied=False)
    rows = []
    for row in ids:
        logits = model(input_ids=row[None]).logits[0, :-1]
        found = torch.autograd.grad(F.cross_entropy(logits, row[1:]), list(model.parameters()))
        rows.append(torch.cat([g.flatten() for g in found]).double())
    return torch.stack(rows)
