"""The status of runs for people."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from presence_ds.printable import printable
from presence_ds.trainer.callbacks.console import describe, describe_validation
from presence_ds.trainer.status.status import Status, read_status

BARS = "▁▂▃▄▅▆▇█"
STYLES = {"running": "green", "finished": "bold", "stopped": "yellow", "dead": "red", "not started": "dim"}


def show(paths: Sequence[Path], *, as_json: bool) -> list[Status]:
    """Print the runs in ``paths`` once."""
    statuses = read_status(paths)
    if as_json:
        print(json.dumps([asdict(status) for status in statuses], default=str), flush=True)
    else:
        Console(emoji=False).print(render(statuses))
    return statuses


def watch(paths: Sequence[Path], every: float, *, as_json: bool) -> None:
    """Look at the runs in ``paths`` every so many seconds, until none of them is in progress or the user has enough."""
    console = Console(emoji=False)
    try:
        if as_json or not console.is_terminal:
            while _any_goes_on(show(paths, as_json=as_json)):
                time.sleep(every)
            return
        with Live(console=console, auto_refresh=False) as live:
            while True:
                statuses = read_status(paths)
                live.update(render(statuses), refresh=True)
                if not _any_goes_on(statuses):
                    return
                time.sleep(every)
    except KeyboardInterrupt:  # which is how one stops looking
        return


def _any_goes_on(statuses: Sequence[Status]) -> bool:
    return any(status.state in ("running", "not started") for status in statuses)


def render(statuses: Sequence[Status]) -> RenderableType:
    """All that is known of one run, or a line for each of several."""
    return _details(statuses[0]) if len(statuses) == 1 else _table(statuses)


def _details(status: Status) -> Table:
    rows: dict[str, RenderableType | None] = {
        "run": _said(str(status.run_dir)),
        "state": Text.assemble(
            (status.state, STYLES[status.state]), printable(f", {status.told}" if status.told else "")
        ),
        "step": Text(_steps(status)),
        "last line": _said(describe(status.metrics) + _logged(status) if status.metrics else None),
        "loss": _said(_curve(status)),
        "validation": _said(
            f"{describe_validation(status.validation)} at step {status.validation['step']:,}"
            if status.validation
            else None
        ),
        "checkpoint": _said(status.checkpoint),
        "Slurm job": _said(status.slurm_job),
    }
    table = Table.grid(padding=(0, 2))
    for name, value in rows.items():
        if value is not None:
            table.add_row(name, value)
    return table


def _table(statuses: Sequence[Status]) -> Table:
    table = Table("run", "state", "step", "loss", "validation", "tokens/s", "worth", "checkpoint")
    for name, status in zip(_names(statuses), statuses, strict=True):
        metrics = status.metrics
        table.add_row(
            Text(printable(name), overflow="fold"),
            Text(status.state, STYLES[status.state]),
            Text(_steps(status)),
            _number(metrics.get("loss"), ".4f"),
            _number(status.validation.get("validation/loss"), ".4f"),
            _number(metrics.get("throughput(tokens/s)"), ",.0f"),
            _number(metrics.get("gain/in_use"), ".2f"),
            Text(printable(status.checkpoint or "–")),
        )
    return table


def _names(statuses: Sequence[Status]) -> list[str]:
    """Paths of the runs without the folders that all of them are in."""
    parts = [status.run_dir.parts for status in statuses]
    common = 0
    while all(common < len(one) - 1 for one in parts) and len({one[common] for one in parts}) == 1:
        common += 1
    return ["/".join(one[common:]) for one in parts]


def _steps(status: Status) -> str:
    text = f"{status.step:,}" if status.total_steps is None else f"{status.step:,} / {status.total_steps:,}"
    if status.eta is not None:
        text += f", ETA {timedelta(seconds=round(status.eta))}"
    return text


def _logged(status: Status) -> str:
    if status.logged_ago is None or status.state != "running":
        return ""
    return f"  ({timedelta(seconds=max(0, round(status.logged_ago)))} ago)"


def _curve(status: Status) -> str | None:
    """The loss from the first line to the last as bars, on a scale of its own."""
    losses = [loss for _, loss in status.curve]
    if len(losses) < 2:
        return None
    least, most = min(losses), max(losses)
    steps = [round((loss - least) / ((most - least) or 1.0) * (len(BARS) - 1)) for loss in losses]
    return f"{losses[0]:.3f} {''.join(BARS[step] for step in steps)} {losses[-1]:.3f}"


def _said(text: str | None) -> Text | None:
    return None if text is None else Text(printable(text))


def _number(value: float | None, form: str) -> Text:
    return Text("–" if value is None else format(value, form), justify="right")
