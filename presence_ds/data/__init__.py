"""Text on disk → packed, tokenized samples → resumable batches on every rank."""

from typing import TYPE_CHECKING

from presence_ds.lazy import lazy_names

if TYPE_CHECKING:
    from presence_ds.data.batches.evaluation import build_evaluation_loader
    from presence_ds.data.batches.training import BatchStream, build_loader
    from presence_ds.data.config import DataConfig
    from presence_ds.data.corpus.dataset import PackedDataset
    from presence_ds.data.corpus.opening import Corpus, open_corpus, open_for
    from presence_ds.data.corpus.prepare import prepare_corpus
    from presence_ds.data.corpus.prepared import fill_from_prepared
    from presence_ds.data.order.mixture import mixture_weights
    from presence_ds.data.samples.objective_config import Lengths, ObjectiveConfig
    from presence_ds.data.sources.config import SourceConfig
    from presence_ds.data.sources.noise import NoiseConfig
    from presence_ds.data.streaming.batches import StreamedBatches
    from presence_ds.data.streaming.config import StreamingConfig
    from presence_ds.data.streaming.stream import RankSamples, Stream
    from presence_ds.data.tokenizer.config import TokenizerConfig
    from presence_ds.data.tokenizer.loading import load_tokenizer
else:
    __getattr__ = lazy_names(__name__, __file__)

__all__ = [
    "BatchStream",
    "Corpus",
    "DataConfig",
    "Lengths",
    "NoiseConfig",
    "ObjectiveConfig",
    "PackedDataset",
    "RankSamples",
    "SourceConfig",
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
    "open_for",
    "prepare_corpus",
]
