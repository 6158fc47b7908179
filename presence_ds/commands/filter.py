"""``presence filter SCORES OUTPUT [--keep N|SHARE] [--by source|language] [--where SQL] ...``."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import ArgumentParser, Namespace

from presence_ds.errors import ConfigError, DataError
from presence_ds.printable import printable

if TYPE_CHECKING:
    from rich.text import Text

HELP = "Keep the samples of a scored corpus with the lowest self-influence, as a corpus to train on."


def make_parser() -> ArgumentParser:
    """Which scores, which rule, and where to."""
    parser = ArgumentParser(
        exit_on_error=False,
        allow_abbrev=False,
        description=f"{HELP} Rows are taken as they are; data.prepared takes the folder. Several rules together keep "
        "what each of them keeps: sources, then where, then max_per_document, and of what is left keep.",
    )
    parser.add_argument("scores", type=Path, help="Folder that presence score wrote.")
    parser.add_argument("output", type=Path, help="Folder to make.")
    parser.add_argument(
        "--keep",
        type=int | float | None,
        default=None,
        help="How many samples to keep, or which share: 0.8. Samples without targets or a score are never kept.",
    )
    parser.add_argument("--reverse", action="store_true", help="Keep the highest: the paper's ablation.")
    parser.add_argument(
        "--by",
        type=Literal["source", "language"] | None,
        default=None,
        help="Keep the same share within each, so that none vanishes. language is what data.sources[].language said "
        "when the corpus was prepared.",
    )
    parser.add_argument("--max_per_document", type=int | None, default=None, help="Samples that start in one document.")
    parser.add_argument(
        "--where",
        type=str | None,
        default=None,
        help="Condition in SQL (DuckDB's) on the columns of the scores: 'loss < 6 and self_influence < 100'.",
    )
    parser.add_argument(
        "--verdicts",
        type=Path | None,
        default=None,
        help="A run directory: nothing is kept of sources of which presence gain says drop.",
    )
    parser.add_argument("--column", type=str, default="self_influence", help="Column of the scores that keep goes by.")
    parser.add_argument(
        "--corpus",
        type=Path | None,
        default=None,
        help="The corpus that was scored, or one that was filtered from it. null: where it was when it was scored.",
    )
    parser.add_argument(
        "--trust_remote_code",
        action="store_true",
        help="Run tokenizer code that comes with the corpus, as data.tokenizer.trust_remote_code.",
    )
    parser.add_argument(
        "--documents", type=Path | None, default=None, help="File of JSON lines to write the text that is kept to."
    )
    return parser


def run(parser: ArgumentParser, parsed: Namespace, arguments: list[str]) -> None:
    """Say what goes, and write the rest."""
    from rich.console import Console

    from presence_ds.data.corpus.opening import load_corpus_tokenizer
    from presence_ds.data.corpus.storage import file_when_complete
    from presence_ds.trainer.ranks.rank_log import print_warning
    from presence_ds.trainer.scores.filter import select
    from presence_ds.trainer.scores.filter_report import print_selection
    from presence_ds.trainer.scores.rule import Rule

    if (parsed.keep, parsed.where, parsed.max_per_document, parsed.verdicts) == (None, None, None, None):
        raise ConfigError("no rule is given: keep, where, max_per_document or verdicts")
    if parsed.documents is not None and parsed.documents.exists():
        raise ConfigError(f"documents is {parsed.documents}: it exists already; name a new file")
    if parsed.documents is not None and parsed.documents.resolve() == parsed.output.resolve():
        raise ConfigError(f"documents is {parsed.documents}: it is the folder to make; name another file")
    if parsed.documents is not None and not parsed.documents.parent.is_dir():
        raise ConfigError(f"documents is {parsed.documents}: there is no folder {parsed.documents.parent}")
    dropped, verdicts = ((), None) if parsed.verdicts is None else read_verdicts(parsed.verdicts)
    rule = Rule(
        keep=parsed.keep,
        reverse=parsed.reverse,
        by=parsed.by,
        max_per_document=parsed.max_per_document,
        where=parsed.where,
        column=parsed.column,
        dropped_sources=dropped,
    )
    selection = select(rule, parsed.scores, parsed.corpus)
    console = Console(file=sys.stdout, emoji=False)
    tokenizer = load_corpus_tokenizer(selection.corpus, parsed.trust_remote_code)
    lines = None if parsed.documents is None else selection.texts(tokenizer)
    print_selection(console, selection, tokenizer)
    for one in selection.vanished():
        remedy = f"; --by {one.kind} keeps some" if one.at_the_cut else ""
        print_warning(f'{one.kind} "{one.name}" vanishes: all its {one.samples:,} samples go{remedy}')
    with _refusal(parsed.output):
        written = selection.write(parsed.output, verdicts)
    if lines is not None:
        with _refusal(parsed.documents), file_when_complete(parsed.documents) as file:
            file.writelines(f"{line}\n" for line in lines)
        console.print(_end("documents", parsed.documents), soft_wrap=True)
    console.print(_end("corpus", parsed.output, "" if written else " (it was there already)"), soft_wrap=True)


@contextmanager
def _refusal(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error.strerror or error})") from None


def _end(name: str, path: Path, more: str = "") -> "Text":
    from rich.text import Text

    return Text(f"{name}: {printable(str(path.absolute()))}{more}")


def read_verdicts(run_dir: Path) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The sources that the run's records give the verdict drop, and which records these are.

    Raises:
        ConfigError: there are no such records, or no source is to be dropped.
    """
    from presence_ds.trainer.gain.gain import past_figures

    figures = past_figures(run_dir, {})
    verdicts = {name: source["verdict"] for name, source in figures["sources"].items()}
    names = tuple(sorted(name for name, verdict in verdicts.items() if verdict == "drop"))
    if not names:
        found = ", ".join(f"{name}: {verdict}" for name, verdict in verdicts.items())
        raise ConfigError(f"verdicts is {run_dir}: no source of it has the verdict drop ({found})")
    return names, {"run_dir": str(run_dir.absolute()), **{name: figures[name] for name in ("first_step", "last_step")}}
