"""The ``reference`` section of a recipe."""

from dataclasses import dataclass

from presence_ds.engine.config import PresenceConfig
from presence_ds.errors import ConfigError
from presence_ds.sections import limited


@dataclass
class ReferenceConfig:
    """The trusted stream that samples are compared with: by signal alignment, or with alignment_with reference.

    Args:
        sources: Names of training sources that are trusted. Their samples are trained on too, like all others.
        every_steps: Optimizer steps between two reference micro-batches on every rank. Each costs about two thirds of
            a micro-step; presence.reference_decay averages over them.
    """

    sources: list[str] | None = None
    every_steps: int = limited(4, least=1)

    def validate(self, field: str, presence: PresenceConfig, known_sources: list[str]) -> None:
        """Raise `ConfigError` naming the first field whose value cannot be used."""
        if presence.uses_reference != bool(self.sources):
            state = "not set" if not self.sources else "set"
            raise ConfigError(
                f"{field}.sources is {state}, and presence.signal is {presence.signal} with alignment_with "
                f"{presence.alignment_with}: name trusted sources for signal alignment and for alignment_with "
                f"reference, and only for them"
            )
        for name in self.sources or []:
            if name not in known_sources:
                raise ConfigError(f'{field}.sources: "{name}" is no training source: it must be one of {known_sources}')
