"""The training loop. Everything optional is a callback."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from presence_ds.data import BatchStream, StreamedBatches
from presence_ds.engine import PresenceEngine
from presence_ds.errors import Stopped
from presence_ds.reweighting.update_share import source_shares
from presence_ds.trainer.building.document_mask import model_inputs, on_device
from presence_ds.trainer.callbacks.callback import Callback
from presence_ds.trainer.ranks.process_group import Ranks
from presence_ds.trainer.run_directory.hang_watch import HangWatch
from presence_ds.trainer.transfer.feed import Feed, Inputs
from presence_ds.trainer.transfer.host_copy import HostCopy

# input_ids, labels and, in a corpus with padding, attention_mask: int64 [B, T], labels of an encoder-decoder model of
# another T; position_ids and document_indices in its place where documents are kept apart; source_ids, offsets: int64
# [B]; document_ids: B strings; pieces of documents: B lists of them, where they are kept apart
Batch = dict[str, Any]
Metrics = dict[str, Any]  # one line of metrics.jsonl


class Trainer:
    """Runs optimizer steps ``step + 1`` to ``total_steps`` and tells the callbacks.

    Attributes:
        tokens: of text seen so far, over all ranks; padding is none.
        step_tokens: those of the last optimizer step.
        tokens_per_step: what they are without padding.
        messages: what ranks tell each other in a step.
        gradient_norm: of the last optimizer step; None at ZeRO stage 0, where DeepSpeed has none, and of a step without
            a target.
    """

    def __init__(
        self,
        engine: PresenceEngine,
        batches: BatchStream | StreamedBatches,
        ranks: Ranks,
        callbacks: dict[str, Callback],
        watch: HangWatch,
        *,
        total_steps: int,
        log_every_steps: int,
        tokens_per_step: int,
        text_tokens: Callable[[int], int],
        source_names: list[str],
    ) -> None:
        """``text_tokens``: the tokens of text in an optimizer step, from its number of targets over all ranks."""
        self.engine = engine
        self.ranks = ranks
        self.watch = watch
        self.messages = engine.presence.messages
        self.total_steps = total_steps
        self.tokens_per_step = tokens_per_step
        self.source_names = source_names
        self.step = self.tokens = self.step_tokens = 0
        self.gradient_norm: HostCopy | None = None
        self.waited = 0.0  # seconds in which this rank has waited for batches
        self.stop: Stopped | None = None  # set by a callback, on every rank alike: the run ends here, to go on later
        self._text_tokens = text_tokens
        self.batches = batches
        self._feed = Feed(batches, self._inputs, engine.device)
        self._callbacks = callbacks
        self._log_every_steps = log_every_steps

    @property
    def is_last_step(self) -> bool:
        """Whether ``step`` is the last optimizer step of the run."""
        return self.step == self.total_steps

    def notify(self, hook: str, *arguments: Any) -> None:
        """Call one hook of every callback, in order."""
        self.watch.progress(self.step)
        for callback in self._callbacks.values():
            getattr(callback, hook)(self, *arguments)

    def fit(self) -> None:
        """Train to the end.

        Raises:
            Stopped: on every rank, that the run has ended early.
        """
        self.watch.start()
        try:
            self._run()
        except Stopped as stopped:
            self.stop = stopped
            self.notify("on_stop")
        finally:
            self.watch.stop()
            with ExitStack() as stack:  # all of them, also when one fails
                for callback in reversed(self._callbacks.values()):
                    stack.callback(callback.close)
        if self.stop is not None:
            self.ranks.barrier(PATIENCE)  # the launcher ends the others when the first one leaves
            raise self.stop

    def _run(self) -> None:
        self.notify("on_train_start")
        self.engine.train()
        while self.step < self.total_steps:
            metrics = self._train_step()
            self.notify("on_step", metrics)
            if self.step % self._log_every_steps == 0 or self.is_last_step or "validation/loss" in metrics:
                self.notify("on_log", metrics | self._logged_metrics())
            self.notify("on_step_end")
            if self.stop is not None:
                raise self.stop
        self.notify("on_train_end")

    def _train_step(self) -> Metrics:
        """One optimizer step: as many micro-steps as DeepSpeed accumulates."""
        learning_rate = self.engine.get_lr()[0]
        micro_steps = self.engine.gradient_accumulation_steps()
        further = 0  # documents that begin in a sample after its first one; their first tokens are no targets either
        for number in range(1, micro_steps + 1):
            asked = time.perf_counter()
            batch, inputs = next(self._feed)
            self.waited += time.perf_counter() - asked
            if "document_indices" in batch:
                further += int(batch["document_indices"].amax(1).sum())
            if number == micro_steps:
                self.messages.tell("further documents", further)
                self.notify("on_last_forward")
            loss = self.engine(**inputs)
            self.engine.backward(loss)
            if number < micro_steps or self.step + 1 < self.total_steps:
                self._prefetch()
            self.engine.step()
            self.notify("on_micro_step", batch)
        self.step += 1
        self.step_tokens = self._text_tokens(self.engine.presence.targets + self.messages.total("further documents"))
        self.tokens += self.step_tokens
        self.gradient_norm = self._gradient_norm()
        return self._metrics(learning_rate)

    def _prefetch(self) -> None:
        """Have the next batch drawn while the device is busy with a backward."""
        asked = time.perf_counter()
        self._feed.prefetch()
        self.waited += time.perf_counter() - asked

    def _inputs(self, batch: Batch) -> Inputs:
        """What the engine takes of a batch in training."""
        return self.model_inputs(batch) | on_device({"source_ids": batch["source_ids"]}, self.engine.device)

    def model_inputs(self, batch: Batch) -> Inputs:
        """What the model takes of a batch, on this rank's device."""
        by_document = self.engine.presence.by_document
        return model_inputs(self.engine.module, batch, self.engine.device, by_document=by_document)

    def _gradient_norm(self) -> HostCopy | None:
        norm: Any = self.engine.get_global_grad_norm()  # after a step without a target that of the step before
        if norm is None or self.engine.presence.is_empty:
            return None
        return HostCopy(norm if isinstance(norm, Tensor) else torch.tensor(norm))

    def _metrics(self, learning_rate: float) -> Metrics:
        statistics = self.engine.presence.statistics
        return {
            "step": self.step,
            "tokens": self.tokens,
            **{name: value for name, value in statistics.items() if name not in ("step", "sources")},
            "learning_rate": learning_rate,
        }

    def _logged_metrics(self) -> Metrics:
        """What takes a loop over the sources, or waits for the device, for the steps that are logged."""
        norm, epochs = self.gradient_norm, self._feed.source_epochs
        metrics: Metrics = {"gradient_norm": None if norm is None else float(norm.values)}
        metrics["epoch"] = int(min(epochs.values()))
        presence = self.engine.presence
        for source_id, source in presence.statistics.get("sources", {}).items():
            metrics |= {f"source/{self.source_names[source_id]}/{name}": value for name, value in source.items()}
        if presence.step_samples is not None and presence.step_weights is not None:
            for source_id, shares in source_shares(presence.step_samples, presence.step_weights).items():
                metrics |= {f"source/{self.source_names[source_id]}/{name}": value for name, value in shares.items()}
        if (worth := presence.worth) is not None:
            metrics |= worth.figures()
            for source_id, source in worth.sources.items():
                name = f"source/{self.source_names[source_id]}"
                metrics |= {f"{name}/worth": source.ratio, f"{name}/worth_error": source.error}
                metrics[f"{name}/verdict"] = source.verdict
        if len(epochs) > 1:
            metrics |= {f"source/{name}/epoch": value for name, value in epochs.items()}
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """This rank's position in the run and in the data, and the callbacks' states."""
        return {
            "step": self.step,
            "tokens": self.tokens,
            "batches": self._feed.state_dict(),
            "callbacks": {name: callback.state_dict() for name, callback in self._callbacks.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave; callbacks that were off then start empty."""
        self.step = state["step"]
        self.tokens = state.get("tokens", self.step * self.tokens_per_step)  # earlier versions counted padding
        self._feed.load_state_dict(state["batches"])
        for name, callback in self._callbacks.items():
            callback.load_state_dict(state["callbacks"].get(name, callback.state_dict()))


PATIENCE = 120.0  # seconds in which every rank has closed its files, and rank 0 its trackers
