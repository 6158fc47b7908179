"""The command line: ``presence COMMAND ...``, each command in a file of `presence_ds.commands`."""

import os
import signal
import sys
import time

from jsonargparse import ArgumentError, ArgumentParser

from presence_ds.commands import estimate, export, prepare, slurm, train
from presence_ds.commands.command import Command
from presence_ds.errors import ConfigError, HealthError, PresenceError, Stopped
from presence_ds.trainer.environment import environment_rank, set_environment_defaults

COMMANDS: dict[str, Command] = {
    "train": train,
    "slurm": slurm,
    "prepare": prepare,
    "estimate": estimate,
    "export": export,
}
GRACE = 20.0  # seconds


def main(arguments: list[str] | None = None) -> None:
    """Run a command; bad input ends in a line on standard error and exit status 1, an early stop in one and its own."""
    set_environment_defaults()
    try:
        run(sys.argv[1:] if arguments is None else arguments)
    except Stopped as stopped:  # on every rank
        if environment_rank() == 0:
            print(f"presence: {stopped}", file=sys.stderr, flush=True)
        if isinstance(stopped, HealthError):  # a thread that waits for a dead node might abort an orderly exit
            os._exit(stopped.status)
        sys.exit(stopped.status)
    except PresenceError as error:
        if environment_rank() != 0:
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            time.sleep(GRACE)  # rank 0 has the same error as a rule, and the launcher then ends this process in silence
        print(f"presence: error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
        sys.exit(error.status)


def run(arguments: list[str]) -> None:
    """Parse, then run the command that ``arguments`` begins with.

    Raises:
        PresenceError: what is wrong with the input, in one line.
    """
    parser = ArgumentParser(
        prog="presence", exit_on_error=False, allow_abbrev=False, description="Pre-training weighted by self-influence."
    )
    subcommands = parser.add_subcommands(required=True, dest="command")
    parsers = {}
    for name, command in COMMANDS.items():
        # Parsers of recipes take their time to make: the other commands are only there for their names.
        parsers[name] = command.make_parser() if arguments[:1] == [name] else ArgumentParser(exit_on_error=False)
        subcommands.add_subcommand(name, parsers[name], help=command.HELP)
    try:
        parsed = parser.parse_args(arguments)
    except ArgumentError as error:
        raise ConfigError(" ".join(str(error).split())) from None
    COMMANDS[parsed.command].run(parsers[parsed.command], parsed[parsed.command], arguments[1:])
