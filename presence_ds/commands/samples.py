"""``presence samples RUN_DIR [--top N | --bottom N] [--by WHAT] [--source S] [--steps A:B] [--json FILE]``."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentParser, Namespace

from presence_ds.commands.figures import add_json_option, show
from presence_ds.errors import ConfigError, PresenceError
from presence_ds.printable import printable

HELP = "Print the samples of a run that stand out, by weight, self-influence or share of the update, as text."
NUMBER = 10
MOST = 10_000


def make_parser() -> ArgumentParser:
    """Which run, which samples of it, and how much of their text."""
    parser = ArgumentParser(
        exit_on_error=False,
        allow_abbrev=False,
        description=f"{HELP} From its score records and its corpus; a sample that was read several times counts each "
        "time.",
    )
    parser.add_argument("run_dir", type=Path, help="A run directory; the run may be in progress.")
    parser.add_argument(
        "--top", type=int | None, default=None, help=f"So many with the highest. Without --bottom: {NUMBER}."
    )
    parser.add_argument("--bottom", type=int | None, default=None, help="So many with the lowest, instead.")
    parser.add_argument(
        "--by",
        type=Literal["weight", "si", "share", "alignment"],
        default="weight",
        help="weight: in units of the mean of its step. si: self-influence. share: of the update of its step; below 0 "
        "for a sample that pulls it back. alignment: with the mean gradient of the step's others.",
    )
    parser.add_argument("--source", type=str | None, default=None, help="Of this source alone.")
    parser.add_argument(
        "--steps", type=str | None, default=None, help="A:B, the first and the last step; one of them may be left out."
    )
    parser.add_argument("--characters", type=int, default=300, help="Of the text of each.")
    add_json_option(parser)
    return parser


def run(parser: ArgumentParser, parsed: Namespace, arguments: list[str]) -> None:
    """Print them, or write JSON."""
    if parsed.top is not None and parsed.bottom is not None:
        raise ConfigError("top and bottom are both given: give one of them")
    lowest = parsed.bottom is not None
    number = parsed.bottom if lowest else NUMBER if parsed.top is None else parsed.top
    if not 1 <= number <= MOST:
        raise ConfigError(f"{'bottom' if lowest else 'top'} is {number}: it must be from 1 to {MOST:,}")
    if parsed.characters < 1:
        raise ConfigError(f"characters is {parsed.characters}: it must be at least 1")
    first, last = _steps(parsed.steps)

    from presence_ds.trainer.samples.find import find_samples
    from presence_ds.trainer.samples.texts import SampleTexts

    chosen = find_samples(
        parsed.run_dir, number, parsed.by, lowest=lowest, source=parsed.source, first=first, last=last
    )
    samples = [one.sample for one in chosen.found]
    texts: list[str | None] = [None] * len(samples)
    without = None
    try:
        texts = SampleTexts.of_run(parsed.run_dir).find(samples, parsed.characters)
    except PresenceError as error:  # the records say something without it
        without = str(error)
    figures = {
        "run_dir": str(parsed.run_dir),
        "by": parsed.by,
        "order": "lowest" if lowest else "highest",
        "first_step": chosen.first,
        "last_step": chosen.last,
        "source": parsed.source,
        "records": chosen.records,
        "counted": chosen.counted,
        "without_text": without,
        "samples": [
            {**one.sample._asdict(), **asdict(one), "text": text} for one, text in zip(chosen.found, texts, strict=True)
        ],
    }
    for sample in figures["samples"]:
        del sample["sample"]
    show(figures, parsed.json, lambda: _print(figures))


def _steps(text: str | None) -> tuple[int | None, int | None]:
    """First and last of ``A:B``; None where it says nothing."""
    if text is None:
        return None, None
    parts = text.split(":")
    if len(parts) != 2 or not all(part.isdecimal() or not part for part in parts):
        raise ConfigError(f"steps is {text}: it must be two numbers such as 100:200, of which one may be left out")
    first, last = (int(part) if part else None for part in parts)
    if first is not None and last is not None and first > last:
        raise ConfigError(f"steps is {text}: the first must not be above the last")
    return first, last


def _print(figures: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    console = Console(file=sys.stdout, emoji=False, highlight=False)
    what = "" if figures["source"] is None else f" of {figures['source']}"
    left_out = figures["records"] - figures["counted"]
    lines = [
        f"{figures['run_dir']}: steps {figures['first_step']} to {figures['last_step']}, {figures['counted']:,} samples"
        f"{what}" + (f"; {left_out:,} more did not count" if left_out else ""),
        f"{figures['order']} by {figures['by']}; a weight of 1 is the mean of its step",
    ]
    if figures["without_text"] is not None:
        lines.append(f"without text: {figures['without_text']}")
    for line in lines:
        console.print(Text(printable(line)), soft_wrap=True)
    for place, sample in enumerate(figures["samples"], 1):
        console.print()
        console.print(Text(f"{place:>3}  {_values(sample)}", style="bold"), soft_wrap=True)
        origin = f"{sample['source']} · {sample['document_id']} · from token {sample['offset']:,}"
        console.print(Text(f"     {printable(origin)} · step {sample['step']:,}", style="cyan"), soft_wrap=True)
        if figures["without_text"] is None:
            console.print(Padding(_body(sample["text"]), (0, 0, 0, 5), expand=False))


def _values(sample: dict[str, Any]) -> str:
    parts = [f"weight {sample['weight']:.3g}"]
    for name, form in (("share", ".2%"), ("self_influence", ".4g"), ("alignment", ".4g"), ("loss", ".3f")):
        if sample[name] is not None:
            parts.append(f"{name.replace('_', '-')} {sample[name]:{form}}")
    return "  ".join(parts)


def _body(text: str | None) -> Any:
    from rich.text import Text

    if text is None:
        return Text("the corpus has no such sample", style="dim")
    return Text("\n".join(printable(line) for line in text.strip().expandtabs(4).split("\n")))
