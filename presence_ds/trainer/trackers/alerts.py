"""What a person is to be told of a line of metrics at once."""

from typing import Any, NamedTuple

COUNTS = {  # of steps since the start of the run, as trackers name them: what rose, in words
    "train/loss_spikes": "the loss spiked",
    "train/gradient_spikes": "the gradient norm spiked",
    "train/nonfinite_steps": "samples had no finite loss or self-influence",
    "train/skipped_steps": "steps were skipped",
}


class Alert(NamedTuple):
    title: str
    text: str


class Alerts:
    """Looks at every line, in order, of all starts of a run, and tells of those of the last one."""

    def __init__(self) -> None:
        self._before: dict[str, int] = {}

    def of(self, figures: dict[str, Any]) -> list[Alert]:
        """What has happened since the line before, whose names are those of trackers."""
        found = []
        for name, what in COUNTS.items():
            count = figures.get(name) or 0
            risen = count - self._before.get(name, 0)
            if risen > 0:
                text = f"up to step {figures['step']}: {risen} since the last logged step, {count} in all"
                found.append(Alert(what, text))
            self._before[name] = count
        return found


def stalled(step: int, minutes: float) -> Alert:
    """Nothing was logged after ``step`` for as long."""
    return Alert("training stalls", f"nothing was logged for {minutes:g} minutes after step {step}")
