"""The command line: ``presence COMMAND ...``, each command in a file of `presence_ds.commands`."""

import io
import os
import signal
import sys
import time

from jsonargparse import ArgumentError, ArgumentParser

from presence_ds.commands import (
    dashboard,
    estimate,
    export,
    filter,
    gain,
    new,
    prepare,
    probe,
    report,
    samples,
    score,
    slurm,
    status,
    train,
)
from presence_ds.commands.command import Command
from presence_ds.errors import ConfigError, PresenceError
from presence_ds.launch.environment import environment_rank, set_environment_defaults
from presence_ds.printable import printable

COMMANDS: dict[str, Command] = {
    "new": new,
    "train": train,
    "slurm": slurm,
    "prepare": prepare,
    "estimate": estimate,
    "status": status,
    "report": report,
    "gain": gain,
    "samples": samples,
    "dashboard": dashboard,
    "score": score,
    "filter": filter,
    "probe": probe,
    "export": export,
}
GRACE = 20.0  # seconds


def main(arguments: list[str] | None = None) -> None:
    """Run a command; bad input ends in a line on standard error and exit status 1."""
    try:
        use_utf8()
        set_environment_defaults()
        run(sys.argv[1:] if arguments is None else arguments)
    except PresenceError as error:
        if environment_rank() != 0:
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            time.sleep(GRACE)  # rank 0 has the same error as a rule, and the launcher then ends this process in silence
        print(f"presence: error: {printable(' '.join(str(error).split()))}", file=sys.stderr, flush=True)
        sys.exit(error.status)


def use_utf8() -> None:
    """Have the names of files, arguments, output and child processes in UTF-8, whatever the locale says.

    Python takes the encoding of names from the locale when it starts, so that in another one it is started again.

    Raises:
        ConfigError: Python was told to do otherwise.
    """
    if sys.getfilesystemencoding() != "utf-8":
        if os.environ.get("PYTHONUTF8") == "1":
            raise ConfigError("Python was started with -E, -I or -X utf8=0: leave that out")
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names that are not UTF-8 are shown as they are
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")


def run(arguments: list[str]) -> None:
    """Parse, then run the command that ``arguments`` begins with.

    Raises:
        PresenceError: what is wrong with the input, in one line.
    """
    if not arguments:
        raise ConfigError(f"no command is given: it must be one of {', '.join(COMMANDS)}, or --help")
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
