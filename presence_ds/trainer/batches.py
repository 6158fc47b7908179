"""Where the micro-batches of a rank come from: a corpus, or text that is streamed."""

from typing import Any

from torchdata.stateful_dataloader import StatefulDataLoader

from presence_ds.data import (
    BatchStream,
    Corpus,
    PackedDataset,
    RankSamples,
    Stream,
    StreamedBatches,
    build_evaluation_loader,
    build_loader,
    mixture_weights,
)
from presence_ds.data.objective import make_objective
from presence_ds.data.sources import find_files, is_remote
from presence_ds.trainer.distributed import Ranks
from presence_ds.trainer.recipe import Recipe
from presence_ds.trainer.shared_batches import SharedBatches
from presence_ds.trainer.trainer import Batches


def training_batches(corpus: Corpus, recipe: Recipe, ranks: Ranks) -> Batches:
    """Micro-batches of this rank out of the whole training part, or of text that is streamed."""
    if recipe.data.streaming is not None:
        return SharedBatches(streamed_batches(corpus, recipe, ranks), ranks)
    weights = mixture_weights(recipe.data.sources, recipe.data.noise)
    loader = build_loader(
        corpus.train, **loader_options(recipe, ranks), weights=weights, source_names=corpus.source_names
    )
    return BatchStream(loader)


def streamed_batches(corpus: Corpus, recipe: Recipe, ranks: Ranks) -> StreamedBatches:
    """Micro-batches of this rank out of the text as it is read."""
    data = recipe.data
    assert data.streaming is not None
    assert data.sequence_length is not None
    assert data.packing is not None
    readers = ranks.world_size * max(1, data.num_workers)
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
            data.objective, data.sequence_length, data.packing, corpus.tokenizer, data.seed, "train"
        )
        samples = RankSamples(stream, ranks.rank, ranks.world_size)
        return StreamedBatches(samples, objective, recipe.training.micro_batch_size, data.num_workers)


def evaluation_loader(part: PackedDataset, recipe: Recipe, ranks: Ranks) -> StatefulDataLoader:
    """This rank's batches of a split, every sample of which is seen once."""
    return build_evaluation_loader(part, **loader_options(recipe, ranks))


def loader_options(recipe: Recipe, ranks: Ranks) -> dict[str, Any]:
    """What every loader of a run has in common."""
    return {
        "micro_batch_size": recipe.training.micro_batch_size,
        "rank": ranks.rank,
        "world_size": ranks.world_size,
        "seed": recipe.data.seed,
        "num_workers": recipe.data.num_workers,
    }
