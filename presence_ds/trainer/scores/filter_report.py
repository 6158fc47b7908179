"""What a rule keeps of a corpus and what goes, for people."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from rich.text import Text
from transformers import PreTrainedTokenizerBase

from presence_ds.printable import printable
from presence_ds.trainer.scores.filter import Selection
from presence_ds.trainer.scores.rule import REASONS, SCORE

BINS = 24
BAR = 40  # characters of the longest
EXAMPLES = 20
EXAMPLE_TOKENS = 48


def print_selection(console: Console, selection: Selection, tokenizer: PreTrainedTokenizerBase) -> None:
    """Counts by reason, source and length, how the scores are distributed, and examples from both sides."""
    counts = np.bincount(selection.reasons, minlength=len(REASONS)).tolist()
    total = len(selection.samples)
    kept = f"{counts[0]:,} of {total:,} samples kept ({counts[0] / total:.1%})"
    console.print(Text(f"{printable(str(selection.corpus))}: {kept}"), soft_wrap=True)
    for reason, count in zip(REASONS[1:], counts[1:], strict=True):
        if count:
            console.print(f"  dropped by {reason}: {count:,}", highlight=False)
    names = [Text(printable(name)) for name in selection.samples.source_names]
    console.print(_counts("source", names, selection.samples.source_ids, selection), highlight=False)
    _print_lengths(console, selection)
    if selection.samples.counted.any():
        _print_histogram(console, selection)
    _print_examples(console, selection, tokenizer)


def _counts(title: str, names: Sequence[Text], groups: NDArray[np.integer], selection: Selection) -> Table:
    """Samples and tokens, kept and dropped, of every group that has any."""
    table = Table(title, "samples kept", "dropped", "share kept", "tokens kept", "tokens dropped", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    kept, tokens = selection.kept, selection.samples.tokens
    numbers = {
        side: (
            np.bincount(groups[which], minlength=len(names)),
            np.bincount(groups[which], weights=tokens[which], minlength=len(names)).astype(np.int64),
        )
        for side, which in (("kept", kept), ("dropped", ~kept))
    }
    for index, name in enumerate(names):
        (here, here_tokens), (gone, gone_tokens) = (
            [int(column[index]) for column in numbers[side]] for side in ("kept", "dropped")
        )
        if here + gone:
            share = f"{here / (here + gone):.1%}"
            table.add_row(name, f"{here:,}", f"{gone:,}", share, f"{here_tokens:,}", f"{gone_tokens:,}")
    return table


def _print_lengths(console: Console, selection: Selection) -> None:
    """By powers of two; nothing where all samples are as long."""
    tokens = selection.samples.tokens
    if tokens.min() == tokens.max():
        return
    groups = np.floor(np.log2(np.maximum(tokens, 1))).astype(np.int64)
    names = [Text(f"{2**power:,} – {2 ** (power + 1) - 1:,}") for power in range(int(groups.max()) + 1)]
    console.print(_counts("tokens", names, groups, selection), highlight=False)


def _print_histogram(console: Console, selection: Selection) -> None:
    """Bars of the scores, kept and dropped; bins have the same ratio where all scores are positive, else the width."""
    samples, kept = selection.samples, selection.kept
    values = samples.scores.astype(np.float64)
    counted, logarithmic = samples.counted, bool((values[samples.counted] > 0).all())
    low, high = values[counted].min(), values[counted].max()
    edges = np.geomspace(low, high, BINS + 1) if logarithmic else np.linspace(low, high, BINS + 1)
    edges[-1] = np.inf
    bins = np.searchsorted(edges, values, side="right") - 1
    bins = np.clip(bins, 0, BINS - 1)
    here, gone = (np.bincount(bins[counted & which], minlength=BINS) for which in (kept, ~kept))
    most = int((here + gone).max())
    ratio = ", bins of equal ratio" if logarithmic else ""
    console.print(Text(f"{printable(selection.rule.column)}{ratio} (█ kept, ░ dropped):"))
    for index in range(BINS):
        both, own = int(here[index] + gone[index]), int(here[index])
        width = -(-both * BAR // most)  # what there is shows
        filled = round(width * own / both) if both else 0
        if both:
            filled = min(max(filled, own > 0), width - (own < both) * (width > 1))
        bar = "█" * filled + "░" * (width - filled)
        console.print(f"  {edges[index]:>10.4g} {bar:<{BAR}} {both:,}", highlight=False)
    cut = _cut(selection)
    if cut is not None:
        console.print(f"  cut: {cut}", highlight=False)


def _cut(selection: Selection) -> str | None:
    """Between which scores ``keep`` cuts; None where it does not, or not in one place."""
    rule, scores = selection.rule, selection.samples.scores
    gone = selection.reasons == SCORE
    if rule.by is not None or not gone.any():
        return None
    kept = scores[selection.kept]
    inner, outer = (kept.min(), scores[gone].max()) if rule.reverse else (kept.max(), scores[gone].min())
    return f"{inner:.9g} is kept, {outer:.9g} is not"


def _print_examples(console: Console, selection: Selection, tokenizer: PreTrainedTokenizerBase) -> None:
    """A line for each: source, score, and the start of its text."""
    samples = selection.samples
    names = [printable(name) for name in samples.source_names]
    width = max(map(len, names))
    for side, which in (("kept", selection.kept), ("dropped", ~selection.kept)):
        console.print(f"{side}, evenly spaced by score:")
        rows = np.flatnonzero(which & samples.counted)
        rows = rows[np.argsort(samples.scores[rows], kind="stable")]
        rows = rows[np.unique(np.linspace(0, max(len(rows) - 1, 0), min(EXAMPLES, len(rows))).astype(np.int64))]
        ascending = np.sort(rows)
        tokens = dict(zip(ascending.tolist(), selection.stored.column("input_ids", ascending).to_pylist(), strict=True))
        for row in rows.tolist():
            text = printable(tokenizer.decode(tokens[row][:EXAMPLE_TOKENS]))
            line = Text(f"  {names[samples.source_ids[row]]:<{width}} {samples.scores[row]:>10.4g}  {text}")
            line.truncate(console.width, overflow="ellipsis")
            console.print(line)
