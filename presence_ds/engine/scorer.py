"""Forward and input-gradient sweep: per-sample losses and self-influence, without a single weight gradient."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from presence_ds.capture import Capture, Documents, Instrumentation, stray_parameters
from presence_ds.engine.batch import logits_of, take_labels
from presence_ds.engine.zero import leaf_modules_at_rest
from presence_ds.errors import AttributionError
from presence_ds.influence import SampleLoss, ScoreSweep, SelfInfluence


@dataclass(frozen=True, kw_only=True)
class Found:
    """What is known of the samples of a micro-batch; B below is the number of its documents, where there are any.

    Attributes:
        losses: [B] float32 per-sample losses.
        targets: [B] int64 numbers of target tokens.
        scores: [B] float32 raw self-influence; under granularity microbatch and global_microbatch all alike. None where
            no gradients are computed.
        vocabulary_scores: [B] float32 what of them is in embeddings and output head, where that is asked for.
        features: [B, k²] float32 joint projections, where gradients are compared.
        sketches: [B, m] float32 what alignments are computed from, where they are asked for.
        documents: whose losses and scores they are, with granularity document.
    """

    losses: Tensor
    targets: Tensor
    scores: Tensor | None = None
    vocabulary_scores: Tensor | None = None
    features: Tensor | None = None
    sketches: Tensor | None = None
    documents: Documents | None = None

    @property
    def rows(self) -> int:
        """Rows of the micro-batch."""
        return len(self.losses) if self.documents is None else self.documents.num_rows


@dataclass(frozen=True, kw_only=True)
class Scored(Found):
    """A micro-batch after its input-gradient sweep.

    Attributes:
        capture: gradient terms of every parameter, empty unless they were kept; unless granularity is sample or
            document of 1 sample, whose loss is the mean over those that have targets.
        scale: what the captured output gradients are multiplied by (the loss scale of fp16).
    """

    capture: Capture
    scale: float


class Scorer:
    """Scores micro-batches of one model.

    Attributes:
        instrumentation: the layer rules of the model.
        left_out: trainable parameters that do not enter the self-influence because nothing attributes their gradient to
            samples; only two_pass can have any.
    """

    def __init__(
        self,
        model: nn.Module,
        influence: SelfInfluence,
        loss: SampleLoss,
        *,
        granularity: str = "sample",
        strategy: str = "one_pass",
        features: int | None = None,
        sketches: bool = False,
        tells_apart: bool = False,
        alignment_dim: int | None = None,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        """Strategy one_pass keeps the terms of all parameters.

        With ``tells_apart`` scores of what ``influence`` has apart are told by themselves.

        ``features`` is the width of the joint projections, None without; with ``sketches`` there are sketches for
        alignments, of width ``alignment_dim`` or, without, all that ``influence`` has.

        ``group`` is the data-parallel group, over which the first `score` looks for parameters that are used outside
        every instrumented call, in a forward of its own. None: there are no other ranks, and nothing is looked for.

        Raises:
            AttributionError: one_pass cannot train a module of the model.
        """
        self.instrumentation = Instrumentation(model)
        self.left_out: set[Tensor] = set()
        self._model = model
        self._influence = influence
        self._loss = loss
        self._granularity = granularity
        self._features = features
        self._sketches = sketches
        self._tells_apart = tells_apart
        self._alignment_dim = alignment_dim
        self._one_pass = strategy == "one_pass"
        self._group = group
        self._looked_for_strays = group is None
        self.leave_out(self.instrumentation.unattributable)

    @property
    def sketch_width(self) -> int:
        """Numbers in a sample's sketch for alignments."""
        return self._alignment_dim or self._influence.width

    @property
    def gradient_width(self) -> int:
        """Numbers that a sample's sketch is made from."""
        return self._influence.width

    @property
    def scored(self) -> list[str]:
        """Name of every parameter that enters the self-influence."""
        return list(self._influence.selected.values())

    def leave_out(self, reasons: Mapping[nn.Module, str]) -> None:
        """Leave modules out of the self-influence, for the reasons given.

        Raises:
            AttributionError: the strategy is one_pass, which cannot train what it cannot attribute.
        """
        for module, reason in reasons.items():
            self.instrumentation.leave_out(module)
            self._leave_out(self.instrumentation.left_out, reason, "or freeze it")

    def score(
        self, forward: Callable[..., Any], args: tuple[Any, ...], batch: dict[str, Any], scale: float = 1.0
    ) -> Scored:
        """Run the model and the input-gradient sweep.

        Args:
            forward: the model's own forward; its output has ``logits`` [B, T, V] (or is a tuple that begins with them).
            args: positional arguments of ``forward``.
            batch: keyword arguments of ``forward`` and ``labels`` ([B, T] int64, −100 ignored).
            scale: multiplies the losses in the sweep, so that small gradients survive fp16.

        Raises:
            AttributionError: a module's rows do not belong to single samples, or, with one_pass, a parameter is used
                outside every instrumented call.
        """
        if not self._looked_for_strays:
            self._look_for_strays(forward, args, batch)
        inputs, labels, documents = take_labels(self._model, batch)
        apart = self._granularity in ("sample", "document")
        targets = self._loss.num_targets(labels, documents)
        counted = (targets > 0).sum()
        sweep = ScoreSweep(self._influence)
        capture = Capture(
            len(labels) if apart else 1,
            self.instrumentation.names,
            labels.device,
            observe=sweep.add,
            keep=self._one_pass,
            documents=documents,
        )
        with torch.enable_grad(), self._scoring(capture):
            logits = logits_of(forward(*args, **inputs))
            capture.sweeping = True
            losses = self._loss(logits, labels, documents)
            del logits
            # A whole backward, not torch.autograd.grad, which re-entrant activation checkpointing does not allow; the
            # anchor is its only leaf.
            ((losses.sum() if apart else losses.sum() / counted.clamp(min=1)) * scale).backward()
        losses = losses.detach()
        found = {"scores": sweep.scores() / scale**2}
        if self._tells_apart:
            found["vocabulary_scores"] = sweep.scores_apart() / scale**2
        if self._influence.keeps_sketches:
            sketches = sweep.sketches()
            found |= self._of_sketches(sketches if scale == 1.0 else sketches / scale, counted)
        found["scores"] = found["scores"].expand(len(losses))
        return Scored(losses=losses, targets=targets, documents=documents, capture=capture, scale=scale, **found)

    def _of_sketches(self, sketches: Tensor, counted: Tensor) -> dict[str, Tensor]:
        """Fields of `Found`; ``counted`` (0-dimensional) is how many samples of the micro-batch have targets."""
        found = {}
        if self._granularity == "global_microbatch" and self._group is not None:
            totals = torch.cat([(sketches * counted).flatten(), counted[None].to(sketches.dtype)])
            dist.all_reduce(totals, group=self._group)
            found["scores"] = (totals[:-1] / totals[-1].clamp(min=1)).view_as(sketches).square().sum(1)
        if self._features is not None:
            found["features"] = self._influence.joint(self._features)(sketches)
        if self._sketches:
            width = self._alignment_dim
            found["sketches"] = sketches.float() if width is None else self._influence.joint(width)(sketches)
        return found

    def _look_for_strays(self, forward: Callable[..., Any], args: tuple[Any, ...], batch: dict[str, Any]) -> None:
        """Find the parameters that are used outside every instrumented call, on all ranks alike."""
        self._looked_for_strays = True
        inputs, labels, _ = take_labels(self._model, batch)
        capture = Capture(len(labels), self.instrumentation.names, labels.device, keep=False)
        with torch.enable_grad(), self._scoring(capture):
            found = stray_parameters(logits_of(forward(*args, **inputs)), self._model)
        if not self._one_pass:
            everywhere: list[list[str]] = [[] for _ in range(dist.get_world_size(self._group))]
            dist.all_gather_object(everywhere, found, group=self._group)
            found = sorted({name for rank in everywhere for name in rank})
        for name in found:
            reason = (
                f"parameter {name} is used outside the call of its module: its gradient cannot be attributed to samples"
            )
            self._leave_out([name], reason, "call the module, or freeze it")

    def _leave_out(self, names: Iterable[str], reason: str, remedy: str) -> None:
        if self._one_pass:
            raise AttributionError(
                f"{reason}, and strategy one_pass cannot train it; use presence.strategy two_pass, which leaves it out "
                f"of the self-influence, {remedy}"
            )
        self.left_out.update(self._model.get_parameter(name) for name in names)
        self._influence.forget(*self.left_out)
        if not dist.is_initialized() or dist.get_rank() == 0:
            warnings.warn(f"{reason}; it is left out of the self-influence", stacklevel=2)

    @contextmanager
    def _scoring(self, capture: Capture) -> Iterator[None]:
        """Inside, layer rules run, and parameters that are left out require no gradient, so that none is formed."""
        for parameter in self.left_out:
            parameter.requires_grad_(False)
        try:
            with self.instrumentation.recording(capture), leaf_modules_at_rest(self._model):
                yield
        finally:
            for parameter in self.left_out:
                parameter.requires_grad_(True)
