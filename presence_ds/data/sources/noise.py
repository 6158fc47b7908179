"""The paper's known noise: copies of training documents with their words shuffled, under a source of their own."""

import random
import re
from dataclasses import dataclass

from presence_ds.data.hashing import stable_hash, unit_hash
from presence_ds.errors import ConfigError
from presence_ds.sections import limited


@dataclass
class NoiseConfig:
    """Word-shuffled copies of training documents, added to the training part (never to validation).

    Args:
        share: Share of the training documents, after adding, that are shuffled copies; above 0 and at most 0.5. The
            documents copied are chosen by a hash of the seed and the document's id, so the share is met on average.
        name: Name of the source the copies form. A copy keeps the id of its original.
    """

    share: float = limited(0.2, above=0, most=0.5)  # every document has one copy then
    name: str = "shuffled"

    def validate(self, field: str) -> None:
        """Raise `ConfigError` naming the field under ``field`` that cannot be used."""
        if not self.name:
            raise ConfigError(f"{field}.name is empty: give the shuffled copies a source name")


def is_copied(noise: NoiseConfig, seed: int, document_id: str) -> bool:
    """Whether this training document gets a shuffled copy: share s after adding means s / (1 - s) of the originals."""
    return unit_hash(seed, "noise", document_id) < noise.share / (1 - noise.share)


def shuffle_words(text: str, seed: int, document_id: str) -> str:
    """Permute the words of ``text``; the white space between them stays where it is, so that only the order is lost."""
    words = re.findall(r"\S+", text)
    random.Random(stable_hash(seed, "shuffle", document_id)).shuffle(words)
    remaining = iter(words)
    return re.sub(r"\S+", lambda _: next(remaining), text)
