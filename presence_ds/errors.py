"""Errors a user can meet.

Each message is one line: the field or module at fault, what was found, what would be right.
"""

FAILED = 79  # exit status of a run in which a rank has failed in an unforeseen way, or was killed


class PresenceError(Exception):
    """Base of every error this package raises on purpose; the command line prints its message without a traceback.

    Attributes:
        status: what the command line exits with.
    """

    status = 1


class ConfigError(PresenceError):
    """A value in a recipe, in the ``presence`` section or in the DeepSpeed configuration cannot be used."""


class AttributionError(PresenceError):
    """A module's gradient cannot be attributed to single samples, so that strategy ``one_pass`` cannot train it."""


class DataError(PresenceError):
    """A corpus cannot be read or holds nothing to train on."""


class Stopped(PresenceError):
    """The run ends before its last step because it was asked to, and can go on later.

    Attributes:
        reason: signal, stop_file or wall_clock; anomaly or health for the subclasses.
    """

    status = 75  # EX_TEMPFAIL of sysexits.h: try again later
    reason = "signal"

    def __init__(self, message: str, reason: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason or self.reason


class AnomalyError(Stopped):
    """The run ends because going on would do harm; its state is not saved."""

    status = 76
    reason = "anomaly"


class NonFiniteError(AnomalyError):
    """No sample of an optimizer step has a finite loss and self-influence; nothing was updated."""


class HealthError(AnomalyError):
    """A device or a node is sick; nothing was begun."""

    status = 78
    reason = "health"


class CheckpointError(PresenceError):
    """The last checkpoint of a run could not be written; the one before is intact."""
