"""Where the micro-batches of a rank come from: a corpus, read or prepared, or text that is streamed."""

from functools import partial
from typing import Any

from deepspeed.accelerator import get_accelerator

from presence_ds.data import (
    BatchStream,
    Corpus,
    DataConfig,
    RankSamples,
    Stream,
    StreamedBatches,
    build_loader,
    mixture_weights,
    open_for,
    prepare_corpus,
)
from presence_ds.data.corpus.manifest import TOKENIZER_FOLDER
from presence_ds.data.corpus.prepared import prepared_folder
from presence_ds.data.samples.objective import Objective, make_objective
from presence_ds.data.sources.finding import find_files, is_remote
from presence_ds.errors import PresenceError
from presence_ds.reweighting import Messages
from presence_ds.trainer.ranks.process_group import Ranks
from presence_ds.trainer.recipe.recipe import Recipe
from presence_ds.trainer.run_directory.layout import RunDirectory


def load_corpus(data: DataConfig, directory: RunDirectory, ranks: Ranks) -> Corpus:
    """The corpus: ``data.prepared``, or one that is prepared on rank 0 unless that is done."""
    folder = directory.corpus if data.prepared is None else prepared_folder(data)
    if data.prepared is None:
        ranks.on_main(partial(prepare_corpus, data, folder))
    with ranks.agreement():
        corpus = open_for(data, folder)
        if ranks.is_main and data.prepared is not None:
            directory.keep_tokenizer(folder / TOKENIZER_FOLDER)
    return corpus


def training_batches(corpus: Corpus, recipe: Recipe, ranks: Ranks, messages: Messages) -> BatchStream | StreamedBatches:
    """Micro-batches of this rank out of the whole training part, or of text that is streamed.

    ``messages`` are those of the engine, which takes them.
    """
    if recipe.data.streaming is not None:
        return streamed_batches(corpus, recipe, ranks, messages)
    weights = mixture_weights(recipe.data.sources, corpus.noise_shares)
    loader = build_loader(
        corpus.train, **loader_options(recipe, ranks), weights=weights, source_names=corpus.source_names
    )
    return BatchStream(loader)


def streamed_batches(corpus: Corpus, recipe: Recipe, ranks: Ranks, messages: Messages) -> StreamedBatches:
    """Micro-batches of this rank out of the text as it is read."""
    data = recipe.data
    assert data.streaming is not None
    assert data.sequence_length is not None
    assert data.packing is not None
    workers = loading_processes(data, ranks.world_size)
    readers = ranks.world_size * max(1, workers)
    if data.streaming.lanes % readers != 0:
        ranks.warn(
            f"data.streaming.lanes is {data.streaming.lanes}, no multiple of {readers} (ranks x data.num_workers): "
            f"some lanes are read and tokenized more than once",
        )
    with ranks.agreement():  # what is on the hub is listed once for all: the hub limits how often one may ask
        found = [
            [] if is_remote(source) and not ranks.is_main else find_files(source, streamed=True)
            for source in data.sources
        ]
    files = [own or of_main for own, of_main in zip(found, ranks.broadcast(found), strict=True)]
    with ranks.agreement():
        stream = Stream(data, files, corpus.tokenizer, corpus.validation_texts)
        objective = make_objective(
            data.objective,
            data.sequence_length,
            data.packing,
            corpus.tokenizer,
            data.seed,
            "train",
            document_mask=data.document_mask,
        )
        samples = RankSamples(stream, ranks.rank, ranks.world_size)
        return SharedBatches(
            samples,
            objective,
            recipe.training.micro_batch_size,
            workers,
            ranks,
            messages,
            recipe.training.accumulation_steps(ranks.world_size),
        )


def loading_processes(data: DataConfig, world_size: int) -> int:
    """Of each rank: ``data.num_workers``, or what it comes to where that is left open."""
    if data.num_workers is not None:
        return data.num_workers
    if get_accelerator().device_name() == "cpu":
        return 0
    divides = data.streaming is None or data.streaming.lanes % (2 * world_size) == 0
    return 2 if divides else 1  # or lanes would be read twice


def loader_options(recipe: Recipe, ranks: Ranks) -> dict[str, Any]:
    """What every loader of a run has in common."""
    return {
        "micro_batch_size": recipe.training.micro_batch_size,
        "rank": ranks.rank,
        "world_size": ranks.world_size,
        "seed": recipe.data.seed,
        "num_workers": loading_processes(recipe.data, ranks.world_size),
    }


class SharedBatches(StreamedBatches):
    """Streamed batches of this rank, where a fault in the text that one rank meets ends the run on all of them.

    Those of an optimizer step are read during the one before. So ranks tell each other along with its scores whether
    they could be, and all of them end before a step that one of them could not take.
    """

    def __init__(
        self,
        samples: RankSamples,
        objective: Objective,
        micro_batch_size: int,
        num_workers: int,
        ranks: Ranks,
        messages: Messages,
        micro_steps: int,
    ) -> None:
        """``messages`` are those of the engine, whose optimizer steps have ``micro_steps`` batches of each rank."""
        super().__init__(samples, objective, micro_batch_size, num_workers)
        self._ranks = ranks
        self._messages = messages
        self._micro_steps = micro_steps
        self._given = 0  # batches, since the start
        self._error: PresenceError | None = None  # of this rank, in what it was reading

    def prime(self) -> None:
        """Read the first sample of every lane; on every rank at once.

        Raises:
            PresenceError: what is wrong with the text of any of them.
        """
        with self._ranks.agreement():
            super().prime()

    def __next__(self) -> dict[str, Any]:
        """The next batch; on every rank at once, the first of a step when the scores of the one before are there.

        Raises:
            PresenceError: the same on every rank, if the text of the step cannot be read on any.
        """
        if self._given % self._micro_steps == 0:
            if self._given == 0:
                self._read_a_step()
                faults = self._ranks.largest(int(self._error is not None))()
            else:
                faults = self._messages.largest("faults in text")
            if faults:
                with self._ranks.agreement():
                    if self._error is not None:
                        raise self._error
        batch = super().__next__()
        self._given += 1
        self._read_a_step()
        self._messages.tell("faults in text", int(self._error is not None))
        return batch

    def _read_a_step(self) -> None:
        """Have as many batches ahead as a step has."""
        if self._error is None:
            try:
                self.read_ahead(self._micro_steps)
            except PresenceError as error:
                self._error = error

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._given, self._error = 0, None
