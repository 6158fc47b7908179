"""The streamed batches of every rank, and taking samples of them."""

import io
from collections.abc import Callable
from itertools import chain
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from presence_ds.data import DataConfig, RankSamples, Stream, StreamedBatches
from presence_ds.data.samples.objective import make_objective
from presence_ds.data.sources.finding import find_files

LENGTH = 32
SHORT = 10  # documents are shorter than a sample
MakeConfig = Callable[..., DataConfig]
States = list[dict[str, Any]]  # of every rank


def group_of(
    config: DataConfig,
    tokenizer: PreTrainedTokenizerBase,
    ranks: int = 1,
    micro_batch_size: int = 4,
    state: States | None = None,
    validation_texts: frozenset[bytes] = frozenset(),
) -> list[StreamedBatches]:
    """The batches of every rank, from ``state`` on."""
    assert config.sequence_length is not None
    assert config.packing is not None
    files = [find_files(source, streamed=True) for source in config.sources]
    group = []
    for rank in range(ranks):
        stream = Stream(config, files, tokenizer, validation_texts)
        objective = make_objective(
            config.objective,
            config.sequence_length,
            config.packing,
            tokenizer,
            config.seed,
            "train",
            document_mask=config.document_mask,
        )
        samples = RankSamples(stream, rank, ranks)
        group.append(StreamedBatches(samples, objective, micro_batch_size, config.num_workers or 0))
    if state is not None:
        own = state if len(state) == ranks else group[0].divide(iter(state), ranks)
        for batches, of_rank in zip(group, own, strict=True):
            batches.load_state_dict(of_rank)
    return group


Key = tuple[int, str, int, tuple[int, ...]]


def take(group: list[StreamedBatches], micro_steps: int) -> list[Key]:
    """The samples of so many micro-steps of every rank in the order of the run."""
    taken = []
    for _ in range(micro_steps):
        batches = [next(batches) for batches in group]
        names = ("source_ids", "document_ids", "offsets", "input_ids")
        rows = [list(zip(*(batch[name] for name in names), strict=True)) for batch in batches]
        for of_position in chain.from_iterable(zip(*rows, strict=True)):  # ranks take positions in turn
            source, document, offset, ids = of_position
            taken.append((int(source), document, int(offset), tuple(ids.tolist())))
    return taken


def the_state(group: list[StreamedBatches]) -> States:
    """What a checkpoint holds, as it comes back from files: of each rank its own lanes."""
    state = [batches.state_dict() for batches in group]
    for batches, of_rank in zip(group, state, strict=True):
        samples = batches._samples
        lanes, ranks = samples.stream.streaming.lanes, samples.world_size
        assert of_rank["lanes"].keys() <= {position % lanes for position in range(samples.rank, lanes * ranks, ranks)}
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


PACKINGS = ["concat", "document", "best_fit"]
