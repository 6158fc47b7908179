"""What a file of this folder has to define to be a command."""

from typing import Protocol

from jsonargparse import ArgumentParser, Namespace


class Command(Protocol):
    """A module of this folder. It is imported for every command, so what takes long to import waits until ``run``."""

    @property
    def HELP(self) -> str:
        """One sentence for ``presence --help``."""

    def make_parser(self) -> ArgumentParser:
        """The parser of what follows the command's name, made with ``exit_on_error=False``."""

    def run(self, parser: ArgumentParser, parsed: Namespace, arguments: list[str]) -> None:
        """Do it.

        Args:
            parser: what `make_parser` made.
            parsed: its result.
            arguments: what was parsed, everything after the command's name.

        Raises:
            PresenceError: what is wrong with the input, in one line.
        """
