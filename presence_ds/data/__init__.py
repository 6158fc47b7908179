"""Text on disk → packed, tokenized samples → resumable batches on every rank."""

from typing import TYPE_CHECKING

from presence_ds.lazy import lazy_names

if TYPE_CHECKING:
    from presence_ds.data.config import DataConfig
    from presence_ds.data.corpus.corpus import Corpus, PackedDataset, open_corpus
    from presence_ds.data.corpus.prepare import prepare_corpus
    from presence_ds.data.corpus.prepared import fill_from_prepared
    from presence_ds.data.corpus.report import CorpusReport, SourceReport
    from presence_ds.data.evaluation import build_evaluation_loader
    from presence_ds.data.loader import BatchStream, build_loader
    from presence_ds.data.order.mixture import mixture_weights
    from presence_ds.data.samples.objective_config import Lengths, ObjectiveConfig
    from presence_ds.data.sources.noise import NoiseConfig
    from presence_ds.data.sources.sources import SourceConfig
    from presence_ds.data.streaming.batches import StreamedBatches
    from presence_ds.data.streaming.config import StreamingConfig
    from presence_ds.data.streaming.stream import RankSamples, Stream
    from presence_ds.data.tokenizer.tokenizer import load_tokenizer
    from presence_ds.data.tokenizer.tokenizer_config import TokenizerConfig
else:
    __getattr__ = lazy_names(
        __name__,
        {
            "config": ("DataConfig",),
            "corpus.corpus": ("Corpus", "PackedDataset", "open_corpus"),
            "evaluation": ("build_evaluation_loader",),
            "loader": ("BatchStream", "build_loader"),
            "order.mixture": ("mixture_weights",),
            "sources.noise": ("NoiseConfig",),
            "samples.objective_config": ("Lengths", "ObjectiveConfig"),
            "corpus.prepare": ("prepare_corpus",),
            "corpus.prepared": ("fill_from_prepared",),
            "corpus.report": ("CorpusReport", "SourceReport"),
            "sources.sources": ("SourceConfig",),
            "streaming.batches": ("StreamedBatches",),
            "streaming.config": ("StreamingConfig",),
            "streaming.stream": ("RankSamples", "Stream"),
            "tokenizer.tokenizer": ("load_tokenizer",),
            "tokenizer.tokenizer_config": ("TokenizerConfig",),
        },
    )

__all__ = [
    "BatchStream",
    "Corpus",
    "CorpusReport",
    "DataConfig",
    "Lengths",
    "NoiseConfig",
    "ObjectiveConfig",
    "PackedDataset",
    "RankSamples",
    "SourceConfig",
    "SourceReport",
    "Stream",
    "StreamedBatches",
    "StreamingConfig",
    "TokenizerConfig",
    "build_evaluation_loader",
    "build_loader",
    "fill_from_prepared",
    "load_tokenizer",
    "mixture_weights",
    "open_corpus",
    "prepare_corpus",
]
