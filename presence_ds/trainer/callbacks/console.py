"""What rank 0 shows: the resolved set-up, progress with ETA, and the summary."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from rich.console import Console as RichConsole
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from presence_ds.printable import printable
from presence_ds.trainer.callbacks.callback import Callback
from presence_ds.trainer.callbacks.worth_report import print_worth

if TYPE_CHECKING:
    from presence_ds.trainer.trainer import Metrics, Trainer


class Console(Callback):
    """A progress bar on a terminal, a line per logged step elsewhere."""

    def __init__(self, console: RichConsole) -> None:
        self._console = console
        self._progress = Progress(
            BarColumn(bar_width=10),
            MofNCompleteColumn(table_column=Column(no_wrap=True, min_width=7)),
            TimeRemainingColumn(table_column=Column(no_wrap=True, min_width=7)),
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            console=console,
            disable=not console.is_terminal,
        )

    def on_train_start(self, trainer: Trainer) -> None:
        self._task = self._progress.add_task("", total=trainer.total_steps, completed=trainer.step)
        self._progress.start()

    def on_step(self, trainer: Trainer, metrics: Metrics) -> None:
        self._progress.update(self._task, completed=trainer.step)

    def on_log(self, trainer: Trainer, metrics: Metrics) -> None:
        text = describe(metrics)
        if self._console.is_terminal:
            self._progress.update(self._task, description=text)
            if "validation/loss" in metrics:
                self._console.print(
                    f"step {trainer.step}  {describe_validation(metrics)}", highlight=False, markup=False
                )
            return
        seconds = metrics.get("eta(s)")
        remaining = "unknown" if seconds is None else timedelta(seconds=round(seconds))
        line = f"step {trainer.step}/{trainer.total_steps}  ETA {remaining}  {text}"
        if "validation/loss" in metrics:
            line += f"  {describe_validation(metrics)}"
        self._console.print(line, soft_wrap=True, highlight=False, markup=False)

    def on_train_end(self, trainer: Trainer) -> None:
        self.close()  # before the summary is printed

    def close(self) -> None:
        self._progress.stop()


def describe(metrics: Metrics) -> str:
    """The few figures of a step that a person watches."""
    if "loss" not in metrics:
        return "no sample to learn from, the step was skipped"
    text = f"loss {metrics['loss']:.4f}"
    if "throughput(tokens/s)" in metrics:
        text += f"  {metrics['throughput(tokens/s)']:,.0f} tokens/s"
    if "mfu" in metrics:
        text += f"  {metrics['mfu']:.1%} MFU"
    if "tau" in metrics:
        text += f"  τ {metrics['tau']:.3g} ({metrics['stage']})"
    if "clip_level" in metrics:
        text += f"  SI clipped at {metrics['clip_level']:.3g}"
    if "calibration_strength" in metrics:
        text += f"  calibration {metrics['calibration_strength']:.0%}"
    if "gain/in_use_error" in metrics:
        text += f"  worth {metrics['gain/in_use']:.2f} ± {metrics['gain/in_use_error']:.2f} × the batch"
    return text


def describe_validation(figures: dict[str, Any]) -> str:
    """The loss of the validation split, in bits per byte too, and those of its sources where there are several."""
    text = f"validation loss {figures['validation/loss']:.4f}"
    if figures.get("validation/bits_per_byte") is not None:
        text += f", {figures['validation/bits_per_byte']:.4f} bits/byte"
    sources = [
        name.split("/", 1)[1].rsplit("/", 1)[0]
        for name in figures
        if name.startswith("validation/") and name.endswith("/loss") and name != "validation/loss"
    ]
    if len(sources) > 1:
        text += " (" + ", ".join(f"{name} {figures[f'validation/{name}/loss']:.4f}" for name in sources) + ")"
    return text


def print_setup(console: RichConsole, facts: dict[str, Any]) -> None:
    """The resolved facts of the run, one line each."""
    table = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        table.add_row(name, str(value))
    console.print(table, highlight=False)


def print_summary(console: RichConsole, summary: dict[str, Any]) -> None:
    """The summary of a finished run.

    Mean weights are w·N, so that 1 is a uniform weight; ESS is the effective sample size 1/Σw².
    """
    speed = summary["tokens_per_second"]
    loss = summary["validation_loss"]
    console.print()
    console.print(
        f"finished: {summary['steps']} steps, {summary['tokens']:,} tokens"
        + (f", {speed:,.0f} tokens/s" if speed is not None else "")
        + (f", {describe_validation(summary['validation'])}" if loss is not None else ""),
        highlight=False,
        soft_wrap=True,
        markup=False,
    )
    table = Table("stage", "steps", "source", "samples", "mean weight", "mean SI", "ESS / N")
    for stage_name, stage in summary["stages"].items():
        for name, source in stage["sources"].items():
            table.add_row(
                stage_name,
                str(stage["steps"]),
                escape(printable(name)),
                f"{source['samples']:,}",
                f"{source['mean_weight']:.4f}",
                "–" if source["mean_si"] is None else f"{source['mean_si']:.4g}",
                f"{stage['mean_effective_share']:.1%}",
            )
        table.add_section()
    console.print(table, highlight=False)
    if "worth" in summary:
        last = list(summary["stages"].values())[-1:]
        weights = {name: source["mean_weight"] for stage in last for name, source in stage["sources"].items()}
        print_worth(console, summary["worth"], weights)
    console.print(f"run directory: {printable(summary['run_dir'])}", highlight=False, soft_wrap=True, markup=False)
