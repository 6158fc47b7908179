"""Batches, per-sample losses and their gradients, one sample at a time and captured."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from presence_ds.capture import Capture, Instrumentation, stray_parameters
from presence_ds.influence import SelfInfluence, select_parameters
from tests.families.models import VOCABULARY

Batch = dict[str, Tensor]


def make_batch(
    batch_size: int,
    length: int,
    *,
    target_length: int | None = None,
    ignored: float = 0.0,
    padding_side: str | None = None,
    seed: int = 0,
) -> Batch:
    """Random tokens; every sample keeps a label.

    Args:
        batch_size: B.
        length: T, positions of ``input_ids``.
        target_length: positions of ``labels`` and ``decoder_input_ids`` of an encoder-decoder.
        ignored: share of the labels that is −100.
        padding_side: "left" or "right" pads the samples to different lengths; None leaves the mask out.
        seed: of the random numbers.
    """
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(2, VOCABULARY, (batch_size, length), generator=generator)
    batch, labels = {"input_ids": ids}, ids.clone()
    if target_length is not None:
        labels = torch.randint(2, VOCABULARY, (batch_size, target_length), generator=generator)
        batch["decoder_input_ids"] = F.pad(labels, (1, -1))
    labels[torch.rand(labels.shape, generator=generator) < ignored] = -100
    if padding_side is not None:
        lengths = torch.randint(2, length + 1, (batch_size, 1), generator=generator)
        positions = torch.arange(length)
        real = positions < lengths if padding_side == "right" else positions >= length - lengths
        batch["attention_mask"] = real.long()
        batch["input_ids"] = ids.where(real, 0)
        if target_length is None:
            labels = labels.where(real, -100)
    if target_length is None:
        last = -1 if padding_side != "right" else (batch["attention_mask"].sum(1) - 1)
        labels[torch.arange(batch_size), last] = batch["input_ids"][torch.arange(batch_size), last]
    else:
        labels[:, -1] = 7
    return batch | {"labels": labels}


def per_sample_losses(model: Any, batch: Batch) -> Tensor:
    """Token mean of every sample's cross-entropy, [B]."""
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    logits, labels = model(**inputs, use_cache=False).logits, batch["labels"]
    if "decoder_input_ids" not in batch:
        logits, labels = logits[:, :-1], labels[:, 1:]
    losses = F.cross_entropy(logits.mT, labels, reduction="none")
    return losses.sum(1) / (labels != -100).sum(1)


def one_at_a_time(model: nn.Module, batch: Batch, parameters: list[Tensor]) -> list[tuple[Tensor, ...]]:
    """Gradients of every sample's loss, from a batch of that sample alone."""
    gradients = []
    for sample in range(len(batch["labels"])):
        alone = {name: value[sample : sample + 1] for name, value in batch.items()}
        loss = per_sample_losses(model, alone).sum()
        gradients.append(torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True))
    return gradients


class Captured:
    """The terms of a batch's per-sample gradients.

    Attributes:
        instrumentation: of the model, with everything left out that cannot be attributed.
        parameters: the model's other trainable parameters, by name.
        terms: of every parameter.
    """

    def __init__(self, model: nn.Module, batch: Batch) -> None:
        self.model = model
        self.instrumentation = Instrumentation(model)
        for module in self.instrumentation.unattributable:
            self.instrumentation.leave_out(module)
        left_out = [model.get_parameter(name) for name in self.instrumentation.left_out]
        for parameter in left_out:
            parameter.requires_grad_(False)
        try:
            self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
            self.influence = select_parameters(model, "all")
            self.terms = self._record(batch)
        finally:
            for parameter in left_out:
                parameter.requires_grad_(True)

    def _record(self, batch: Batch) -> dict:
        record = Capture(len(batch["labels"]), self.instrumentation.names, batch["labels"].device)
        with self.instrumentation.recording(record):
            losses = per_sample_losses(self.model, batch)
            assert stray_parameters(losses, self.model) == []
            record.sweeping = True
            losses.sum().backward()
        assert all(parameter.grad is None for parameter in self.model.parameters())
        return record.terms

    def scores(self, projection_dim: int | None = None) -> Tensor:
        """SI over all parameters that are not left out, [B]."""
        return SelfInfluence(self.influence, projection_dim, 0)(self.terms)

    def weighted_sum(self, weights: Tensor) -> dict[str, Tensor]:
        """Σ_i weights[i] g_i of every parameter."""
        return {
            name: sum(
                (term.weighted_sum(weights, parameter.dtype) for term in self.terms.get(parameter, [])),
                torch.zeros_like(parameter),
            )
            for name, parameter in self.parameters.items()
        }
