"""``presence report RUN_DIR [RUN_DIR ...] [--output FILE.html] [--tolerance NATS] [--texts false] [--watch]``."""

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from presence_ds.errors import ConfigError, PresenceError
from presence_ds.printable import printable

if TYPE_CHECKING:
    from presence_ds.trainer.report.page.serve import Server

HELP = "Write a page on one run or several: losses, weights, sources, documents; one file that needs no network."
DAY = 86_400  # seconds
ENDINGS = (".html", ".htm")


def make_parser() -> ArgumentParser:
    """Which runs, where the page goes, and whether to go on."""
    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False, description=HELP)
    parser.add_argument(
        "run_dirs", type=Path, nargs="+", help="Run directories, which are only read; runs may be in progress."
    )
    parser.add_argument("--output", type=Path, default=Path("report.html"), help="The page.")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=0.01,
        help="Nats of validation loss within which groups of runs are called equivalent.",
    )
    parser.add_argument("--texts", type=bool, default=True, help="Whether the page has text of documents in it.")
    parser.add_argument(
        "--watch", action="store_true", help="Make it again whenever there is more, and serve it on this machine."
    )
    parser.add_argument("--every", type=float, default=15.0, help="With watch: seconds between two looks.")
    parser.add_argument("--port", type=int, default=0, help="With watch: 0 for any that is free.")
    return parser


def run(parser: ArgumentParser, parsed: Namespace, arguments: list[str]) -> None:
    """Write it, once or again and again."""
    output = parsed.output.absolute()
    _check(parsed, output)
    paths = list(dict.fromkeys(path.absolute() for path in parsed.run_dirs))
    if parsed.watch:
        _watch(paths, output, parsed)
    else:
        page = _made(paths, output, parsed, None)
        print(f"{printable(str(parsed.output))}: {len(page.encode()) / 1e6:.1f} MB", flush=True)


def _check(parsed: Namespace, output: Path) -> None:
    """Before figures are read, which may take a minute."""
    if output.suffix.lower() not in ENDINGS:
        raise ConfigError(f"output is {output}: it must end in .html")
    if output.is_dir() or not output.parent.is_dir() or not os.access(output.parent, os.W_OK | os.X_OK):
        raise ConfigError(f"output is {output}: a file cannot be written there; name a folder that can be written to")
    if not parsed.tolerance > 0:
        raise ConfigError(f"tolerance is {parsed.tolerance}: it must be above 0")
    if not 0 < parsed.every <= DAY:
        raise ConfigError(f"every is {parsed.every}: it must be above 0 seconds, and at most {DAY}")
    if not 0 <= parsed.port < 65536:
        raise ConfigError(f"port is {parsed.port}: it must be from 0 to 65535")


def _made(paths: Sequence[Path], output: Path, parsed: Namespace, version: str | None) -> str:
    """The page, written to ``output``."""
    from presence_ds.data.corpus.storage import file_when_complete
    from presence_ds.trainer.report.page.page import render
    from presence_ds.trainer.report.report import make_report

    page = render(make_report(paths, tolerance=parsed.tolerance, texts=parsed.texts), version)
    try:
        with file_when_complete(output) as file:
            file.write(page)
    except OSError as error:
        raise ConfigError(f"output is {output}: it cannot be written ({error.strerror})") from None
    return page


def _watch(paths: Sequence[Path], output: Path, parsed: Namespace) -> None:
    """Make the page anew whenever a file of the runs has changed, or one has died, until the user has enough."""
    from presence_ds.trainer.report.page.serve import Server
    from presence_ds.trainer.report.report import states_of

    try:
        server = Server(parsed.port)
    except OSError as error:
        raise ConfigError(f"port is {parsed.port}: it cannot be used ({error.strerror})") from None
    seen = None
    try:
        with server:
            while True:
                states = [(path, status.state) for path, status in states_of(paths).items()]
                now = (sorted(_changing(paths)), states)  # a run that is killed changes no file
                if now != seen:
                    _publish(server, paths, output, parsed, first=seen is None)
                    seen = now
                time.sleep(parsed.every)
    except KeyboardInterrupt:  # which is how one stops looking
        return


def _publish(server: "Server", paths: Sequence[Path], output: Path, parsed: Namespace, *, first: bool) -> None:
    version = str(time.time_ns())
    try:
        server.publish(_made(paths, output, parsed, version), version)
    except PresenceError as error:
        if first:
            raise
        print(f"presence: the page stays as it is: {printable(str(error))}", flush=True)
        return
    if first:
        print(f"{server.address}\nCtrl-C ends it; {printable(str(parsed.output))} stays.", flush=True)


def _changing(paths: Sequence[Path]) -> Iterator[tuple[str, int, int]]:
    """Names, sizes and times of the files that a report is made of."""
    for path in paths:
        for file in (*path.glob("*.json*"), *path.glob("*.yaml"), *path.glob("scores/*")):
            try:
                state = file.stat()
            except OSError:  # gone in the meantime
                continue
            yield str(file), state.st_size, state.st_mtime_ns
