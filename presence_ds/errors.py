"""Errors a user can meet.

Each message is one line: the field or module at fault, what was found, what would be right.
"""


class PresenceError(Exception):
    """Base of every error this package raises on purpose; the command line prints its message without a traceback."""


class ConfigError(PresenceError):
    """A value in a recipe, in the ``presence`` section or in the DeepSpeed configuration cannot be used."""


class AttributionError(PresenceError):
    """A module's gradient cannot be attributed to single samples, so that strategy ``one_pass`` cannot train it."""


class DataError(PresenceError):
    """A corpus cannot be read or holds nothing to train on."""


class NonFiniteError(PresenceError):
    """No sample of an optimizer step has a finite loss and self-influence; nothing was updated."""


class CheckpointError(PresenceError):
    """The last checkpoint of a run could not be written; the one before is intact."""
