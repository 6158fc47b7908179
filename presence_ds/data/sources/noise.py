"""Known noise: training documents once more, made worse, as sources of their own beside the clean ones."""

import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from presence_ds.data.hashing import stable_hash, unit_hash
from presence_ds.errors import ConfigError
from presence_ds.sections import limited

KINDS = ("shuffled", "permuted", "random")
MAX_SHARE = 0.5  # every document has one copy then


@dataclass
class NoiseConfig:
    """Noisy copies of training documents, added to the training part (never to validation).

    Args:
        kind: What is done to a document. shuffled: its words are put in another order. permuted: each of its tokens
            becomes another, by one permutation of the vocabulary for the whole corpus, as in a cipher. random: its
            tokens are drawn from the vocabulary, evenly and independently. Special tokens stay where they are.
        share: Share of the training documents, after adding, that are copies of this kind; above 0, and at most 0.5
            with those of all other kinds. The documents copied are chosen by a hash of the seed, the kind and the
            document's id, so the share is met on average.
        name: Name of the source the copies form. A copy keeps the id of its original. None: the kind.
    """

    kind: str = "shuffled"
    share: float = limited(0.2, above=0, most=MAX_SHARE)
    name: str | None = None

    def __post_init__(self) -> None:
        if self.name is None:
            self.name = self.kind

    @property
    def source(self) -> str:
        """Name of the source the copies form."""
        assert self.name is not None  # __post_init__
        return self.name


def check_noises(noises: Sequence[NoiseConfig], sources: Sequence[str], field: str) -> None:
    """Raise `ConfigError` for noises, listed under ``field``, that cannot be used beside ``sources`` or together."""
    if not noises:
        raise ConfigError(f"{field} is empty: give a kind of noise, or null for none")
    kinds, names = [noise.kind for noise in noises], [noise.source for noise in noises]
    for index, (kind, name) in enumerate(zip(kinds, names, strict=True)):
        if kind not in KINDS:
            raise ConfigError(f'{field}[{index}].kind is "{kind}": it must be one of {", ".join(KINDS)}')
        if not name:
            raise ConfigError(f"{field}[{index}].name is empty: give the copies a source name, or null for the kind")
        if name in sources:
            raise ConfigError(f'{field}[{index}].name "{name}" is the name of a source: choose another')
        if kind in kinds[:index]:
            raise ConfigError(f"{field} has kind {kind} twice, which would copy the same documents: give it once")
        if name in names[:index]:
            raise ConfigError(f'{field} has two noises named "{name}": give each its own name')
    total = total_share(noises)
    if total > MAX_SHARE:
        raise ConfigError(f"{field} has shares of {total:g} together: they must be at most {MAX_SHARE}")


def total_share(noises: Sequence[NoiseConfig]) -> float:
    """Share of the training documents, after adding, that are copies of any kind."""
    return math.fsum(noise.share for noise in noises)


def is_copied(noise: NoiseConfig, total: float, seed: int, document_id: str) -> bool:
    """Whether this training document gets a copy of the kind of ``noise``.

    Share s after adding means s / (1 - ``total``) of the originals, ``total`` being the share of all kinds.
    """
    purpose = "noise" if noise.kind == "shuffled" else f"noise {noise.kind}"
    return unit_hash(seed, purpose, document_id) < noise.share / (1 - total)


def shuffle_words(text: str, seed: int, document_id: str) -> str:
    """Permute the words of ``text``; the white space between them stays where it is, so that only the order is lost."""
    words = re.findall(r"\S+", text)
    random.Random(stable_hash(seed, "shuffle", document_id)).shuffle(words)
    remaining = iter(words)
    return re.sub(r"\S+", lambda _: next(remaining), text)
