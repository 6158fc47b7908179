"""What is streamed, and one rank's samples of it."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple

from torch.utils.data import IterableDataset, get_worker_info
from transformers import PreTrainedTokenizerBase

from presence_ds.data.config import DataConfig
from presence_ds.data.order.mixture import Mixture, mixture_weights
from presence_ds.data.readers.hub_file import HubFile
from presence_ds.data.samples.packing import PackedSample
from presence_ds.data.sources.finding import SourceFile
from presence_ds.data.sources.tally import Tally
from presence_ds.data.streaming.config import StreamingConfig
from presence_ds.data.streaming.documents import LaneDocuments, deal, size_of
from presence_ds.data.streaming.lane import Lane, SourceLane
from presence_ds.data.tokenizer.encoding import document_start
from presence_ds.errors import PresenceError

DECISIVE = ("name", "documents", "text_field", "id_field")  # of a source, for which documents its files give


class LaneSample(NamedTuple):
    """A sample, and the state of its lane after it."""

    lane: int
    source_id: int
    sample: PackedSample
    state: dict[str, Any]


@dataclass
class Stream:
    """Everything that the samples depend on; the same on every rank.

    Args:
        config: validated, with its section streaming.
        files: of every training source.
        tokenizer: what text is tokenized with.
        validation_texts: hashes of the texts that are not to be trained on.
    """

    config: DataConfig
    files: list[list[SourceFile]]
    tokenizer: PreTrainedTokenizerBase
    validation_texts: frozenset[bytes] = frozenset()

    def __post_init__(self) -> None:
        assert self.config.streaming is not None
        self.streaming: StreamingConfig = self.config.streaming
        self.weights = mixture_weights(self.config.sources) or {self.config.sources[0].name: 1.0}
        self.shares = [deal(files, self.streaming.lanes) for files in self.files]
        self.tallies = [
            Tally(source, files, self.config.max_bad_share)
            for source, files in zip(self.config.sources, self.files, strict=True)
        ]

    def lane(self, number: int) -> Lane:
        """A lane at its beginning."""
        held = self.streaming.buffer_samples
        first_block = -(-held * (number + 1) // self.streaming.lanes)
        sources = []
        for shares, tally in zip(self.shares, self.tallies, strict=True):
            documents = LaneDocuments(shares[number], tally, self.config, self.validation_texts, number)
            sources.append(SourceLane(documents, self.tokenizer, self.config, first_block))
        return Lane(sources, Mixture(self.weights, self.config.seed, f"lane {number}\0"))

    def identity(self) -> dict[str, Any]:
        """What the order of the samples depends on, as plain values."""
        files = [[(file.name, file.format, size_of(file)) for file in group] for group in self.files]
        reading = [{name: getattr(source, name) for name in DECISIVE} for source in self.config.sources]
        commits = {
            source.name: group[0].path.commit
            for source, group in zip(self.config.sources, self.files, strict=True)
            if isinstance(group[0].path, HubFile)
        }
        return {
            **({"commits of the datasets on the hub": commits} if commits else {}),
            "seed": self.config.seed,
            "weights": self.weights,
            "streaming": {"lanes": self.streaming.lanes, "buffer_samples": self.streaming.buffer_samples},
            "packing": self.config.packing,
            **({"tokens before a document": start} if (start := document_start(self.tokenizer)) else {}),
            "digest of the files": _digest([files, reading]),
            "digest of the tokenizer": _digest(sorted(self.tokenizer.get_vocab().items())),
            "digest of the validation texts": _digest(sorted(text.hex() for text in self.validation_texts)),
        }

    def epochs(self, states: dict[int, dict[str, Any]]) -> dict[str, float]:
        """How often each source has been read on the lanes of ``states``, to within a file; the least of them."""
        epochs = {}
        for index, source in enumerate(self.config.sources):
            read = [0.0]
            for lane, state in states.items():
                epoch, shares = state["sources"][index][:2]
                read.append(epoch + shares / len(self.shares[index][lane]))
            epochs[source.name] = min(read[1:] or read)
        return epochs


def _digest(values: Any) -> str:
    return hashlib.blake2b(json.dumps(values).encode(), digest_size=8).hexdigest()


class RankSamples(IterableDataset[LaneSample | PresenceError]):
    """The samples of one rank, without end: every ``world_size``-th position of the run, in order.

    Position p is on lane p % lanes. The workers of a loader, which takes from them in turn, share the positions of the
    rank in the same way. A lane that several readers have a part in is read by each of them.

    Attributes:
        position: samples taken over all ranks before the first one.
        states: of the lanes then; those that are missing are at their beginning.
    """

    def __init__(self, stream: Stream, rank: int, world_size: int) -> None:
        self.stream = stream
        self.rank = rank
        self.world_size = world_size
        self.position = 0
        self.states: dict[int, dict[str, Any]] = {}

    def __iter__(self) -> Iterator[LaneSample | PresenceError]:
        """Samples; an error is yielded, as a worker that raises it would hide it in a traceback, and ends them."""
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        lanes: dict[int, Lane] = {}
        for position in count(self.position + self.rank + self.world_size * worker, self.world_size * workers):
            index, number = divmod(position, self.stream.streaming.lanes)
            if number not in lanes:
                lanes[number] = self.stream.lane(number)
                if number in self.states:
                    lanes[number].load_state(self.states[number])
            try:
                source_id, sample = lanes[number].sample(index)
            except PresenceError as error:
                yield error
                return
            yield LaneSample(number, source_id, sample, lanes[number].state())
