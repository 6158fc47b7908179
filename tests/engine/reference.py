"""A single-process reference that materialises every per-sample gradient: slow, plain, nothing of the package in it."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass
class Reference:
    """Trains ``model`` with the weights of equations 6 to 10 on the samples of all ranks.

    Attributes:
        signal: "self_influence" or "loss".
        group: samples [g, r, b] that are scored together, by the norm of their mean gradient: "sample", "microbatch"
            (of one rank) or "global_microbatch" (of all ranks).
        keeps_running: whether scores are normalised by the moments of earlier steps.
        running: the last step's μ, the decayed sum of σ²/μ², and of its weights.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    taus: list[float]
    clip: float = 0.0
    signal: str = "self_influence"
    group: str = "sample"
    keeps_running: bool = False
    running: list[float] = field(default_factory=list)

    def step(self, number: int, ids: Tensor, labels: Tensor) -> dict[str, Tensor] | None:
        """One optimizer step, ``number`` from 1, on ids [G, R, b, T]; results have the shape [G, R, b].

        A sample without targets has the loss NaN and is left out; None if all are, and then nothing changes.
        """
        accumulation_steps = ids.shape[0]
        gradients, scores, losses = [], [], []
        for row, targets in zip(ids.flatten(0, 2), labels.flatten(0, 2), strict=True):
            logits = self.model(input_ids=row[None]).logits[0, :-1]
            loss = F.cross_entropy(logits, targets[1:])
            gradient = torch.autograd.grad(loss, list(self.model.parameters()))
            gradients.append(gradient)
            losses.append(loss.detach().double())
        together = {"sample": 1, "microbatch": ids.shape[2], "global_microbatch": ids.shape[1] * ids.shape[2]}[
            self.group
        ]
        for first in range(0, len(gradients), together):
            members = [index for index in range(first, first + together) if losses[index].isfinite()]
            group = zip(*(gradients[index] for index in members), strict=True)
            score = sum((sum(of_one) / len(members)).double().square().sum() for of_one in group)
            scores += [score if members else torch.tensor(torch.nan).double()] * together
        influence, loss = torch.stack(scores), torch.stack(losses)
        score = loss if self.signal == "loss" else influence
        finite = influence.isfinite() & loss.isfinite()
        if not finite.any():
            return None
        flat = torch.stack([torch.cat([part.flatten() for part in one]) for one in gradients]).double()
        alignment = torch.zeros_like(loss)
        for index in finite.nonzero().flatten().tolist():
            others = finite.clone()
            others[index] = False
            if others.any():
                alignment[index] = flat[index] @ flat[others].mean(0)
        per_micro_step = len(score) // accumulation_steps
        if not self.keeps_running:
            basis = score[finite]
            mean, variance = basis.mean(), basis.var(correction=0)
        elif self.running:
            mean, variance = self.running[0], self.running[0] ** 2 * self.running[1] / self.running[2]
        else:  # nothing earlier: the first micro-step of all ranks
            basis = score[:per_micro_step][finite[:per_micro_step]]
            mean, variance = basis.mean(), basis.var(correction=0)
        _, spread, weight = self.running or [0.0, 0.0, 0.0]
        level = score[finite].mean()
        relative = score[finite].var(correction=0) / level**2
        self.running = [level, 0.9 * spread + 0.1 * relative, 0.9 * weight + 0.1]

        # Scores that are all alike tell no spread: the mean of equal numbers may differ from them in the last digit.
        is_spread = variance > (1e-12 * mean) ** 2
        exponent = self.taus[number - 1] * (score - mean) / variance**0.5 if is_spread else torch.zeros_like(score)
        weights = torch.softmax(exponent.masked_fill(~finite, -torch.inf), 0)
        for position, parameter in enumerate(self.model.parameters()):
            parameter.grad = sum(
                weight.float() * gradient[position]
                for weight, gradient in zip(weights, gradients, strict=True)
                if weight > 0
            )
        norm = torch.stack([p.grad.norm() for p in self.model.parameters()]).norm()
        if self.clip and norm > self.clip:
            for parameter in self.model.parameters():
                parameter.grad *= self.clip / norm
        self.optimizer.step()
        shape = ids.shape[:3]
        return {
            "weights": weights.view(shape),
            "scores": influence.view(shape),
            "losses": loss.view(shape),
            "alignments": alignment.view(shape),
            "norm": norm,
        }
