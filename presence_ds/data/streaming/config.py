"""The section ``data.streaming``."""

from dataclasses import dataclass

from presence_ds.errors import ConfigError
from presence_ds.sections import limited


@dataclass
class StreamingConfig:
    """Training text that is read and tokenized while the model trains, and of which nothing is stored.

    Args:
        lanes: Sequences of samples that the text is divided into; every rank and every worker reads its own. A part of
            the recipe: with another number the samples come in another order. At least the number of ranks, best a
            multiple of ranks times num_workers, as each lane is otherwise read by several of them.
        buffer_samples: Samples of a source on a lane that are held and shuffled, all of them before the next ones are
            read. A resume reads the text of these again.
        tokenizer_megabytes: Text (10^6 bytes of UTF-8), from the beginning of each source as much, that a tokenizer is
            trained on where tokenizer.path is null.
    """

    lanes: int = limited(16, least=1)
    buffer_samples: int = limited(64, least=1)
    tokenizer_megabytes: float = limited(100.0, above=0)

    def check_ranks(self, world_size: int, field: str = "data.streaming") -> None:
        """Raise `ConfigError` if there is not a lane for every rank."""
        if self.lanes < world_size:
            raise ConfigError(
                f"{field}.lanes is {self.lanes}: it must be at least the number of ranks, {world_size}, best a multiple"
            )
