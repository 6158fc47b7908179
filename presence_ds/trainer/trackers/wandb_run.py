"""Weights & Biases: the numbers of metrics.jsonl as they are written. Nothing that fails or hangs here ends a run.

A wandb run has one history, however often the run is resumed: at every start it is given the lines of metrics.jsonl
that it does not have, under their optimizer steps. One that is written offline has none, since wandb begins another
folder each time, and so the newest folder has all lines and takes the place of those before it.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import sys
import threading
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import psutil

from presence_ds.trainer.callbacks.callback import Callback
from presence_ds.trainer.callbacks.metrics_file import json_value
from presence_ds.trainer.run_directory.layout import RunDirectory, write_atomically
from presence_ds.trainer.trackers.wandb_config import WandbConfig
from presence_ds.trainer.trackers.wandb_file import steps_in

if TYPE_CHECKING:
    from presence_ds.trainer.trainer import Metrics, Trainer

NETWORK_TIMEOUT = 5.0  # seconds
INIT_TIMEOUT = 60.0  # seconds
FINISH_TIMEOUT = 45.0  # seconds that the end of a run waits for the upload; `wandb sync` sends the rest
CLOSE_TIMEOUT = 60.0  # seconds that the end of a run waits for wandb altogether
MOST_WAITING = 10_000  # logged lines that wandb may be behind


class WandbRun(Callback):
    """One wandb run per run directory; its id is kept there, so that a resumed run goes on in it.

    A thread does everything that concerns wandb, so that training waits for nothing but its end.
    """

    def __init__(
        self,
        config: WandbConfig,
        directory: RunDirectory,
        resolved: dict[str, Any],
        warn: Callable[[str], None],
        signals: Sequence[int] = (),
    ) -> None:
        """Start nothing yet.

        Args:
            resolved: shown as the run's configuration.
            warn: takes a line about a failure, also from the thread.
            signals: numbers of those that wandb's own process is to ignore: SLURM sends them to every process of a job,
                and the last steps are still to be written then. SIGTERM it takes in any case.
        """
        self._config = config
        self._directory = directory
        self._resolved = resolved
        self._warn = warn
        self._signals = signals
        self._waiting: queue.Queue[Metrics | None] = queue.Queue(MOST_WAITING)
        self._thread = threading.Thread(target=self._work, name="wandb", daemon=True)
        self._first_step = 1
        self._failed = False

    def on_train_start(self, trainer: Trainer) -> None:
        self._first_step = trainer.step + 1
        self._thread.start()

    def on_log(self, trainer: Trainer, metrics: Metrics) -> None:
        if self._thread.is_alive():
            try:
                self._waiting.put_nowait({name: json_value(value) for name, value in metrics.items()})
            except queue.Full:
                self._fail(f"it is {MOST_WAITING} lines behind")
                _kill()

    def close(self) -> None:
        if self._thread.ident is None:
            return
        with suppress(queue.Full):
            self._waiting.put_nowait(None)
        self._thread.join(CLOSE_TIMEOUT)
        if self._thread.is_alive():
            self._fail(f"it has not ended within {CLOSE_TIMEOUT:g} s")
            _kill()
            self._thread.join(NETWORK_TIMEOUT)

    def _work(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)  # a process that is started here has them blocked too
        try:
            self._write()
        except Exception as error:
            self._fail(" ".join(str(error).split()) or repr(error))
        finally:
            _tear_down()

    def _write(self) -> None:
        mode = self._mode()
        if mode == "disabled":
            self._warn("wandb is off for this run: WANDB_MODE is disabled")
            return
        offline = mode == "offline"
        run = self._start(offline)
        folder = Path(run.dir).parent
        last = max(run.starting_step - 1, int(run.summary.get("step") or 0))  # that wandb has; 0 of a new run
        if last >= self._first_step:
            self._warn(f"wandb has the steps up to {last} already and does not take them again")
        sent = []

        def log(lines: Iterable[Metrics]) -> None:
            nonlocal last
            for line in lines:
                if line["step"] > last:
                    last = line["step"]
                    run.log(line, step=last, commit=True)
                    sent.append(last)

        log(read_lines(self._directory.metrics, before=self._first_step))
        if offline:
            self._supersede(run.id, folder)
        log(iter(self._waiting.get, None))
        run.finish()
        _tear_down()  # then the file is complete
        if not offline:
            self._supersede(run.id, folder)
        elif steps_in(folder / f"run-{run.id}.wandb") == sent:
            shutil.rmtree(self._superseded, ignore_errors=True)
        else:
            self._warn(f"wandb: {folder} has not all lines of metrics.jsonl, maybe for want of space on the disk")

    def _start(self, offline: bool) -> Any:
        import wandb

        run_id_file = self._directory.wandb_run_id
        run_id = run_id_file.read_text(encoding="utf-8").strip() if run_id_file.is_file() else uuid.uuid4().hex[:8]
        write_atomically(run_id_file, run_id + "\n")
        run = wandb.init(
            project=self._config.project,
            entity=self._config.entity,
            group=self._config.group,
            name=self._config.name or self._directory.path.name,
            id=run_id,
            resume=None if offline else "allow",  # without it `wandb sync` puts a file in the place of the server's run
            dir=str(self._directory.path),
            mode="offline" if offline else "online",
            config=self._resolved,
            settings=wandb.Settings(
                init_timeout=INIT_TIMEOUT, finish_timeout=FINISH_TIMEOUT, console="off", silent=True
            ),
        )
        run.define_metric("*", step_metric="step")
        return run

    def _mode(self) -> Literal["online", "offline", "disabled"]:
        import wandb

        if self._config.mode != "auto":
            return self._config.mode
        stated = os.environ.get("WANDB_MODE")
        if stated == "disabled":
            return "disabled"
        if stated in ("offline", "dryrun") or not wandb.login(prompt=False, verify=False):
            return "offline"
        return "online" if _answers(wandb.setup().settings.base_url) else "offline"

    @property
    def _superseded(self) -> Path:
        """Where folders go whose history is in a newer one; `wandb sync RUN_DIR/wandb` does not look into it."""
        return self._directory.path / "wandb" / "superseded"

    def _supersede(self, run_id: str, folder: Path) -> None:
        """Move the offline folders of this run but ``folder`` out of the way of `wandb sync`."""
        for other in folder.parent.glob(f"offline-run-*-{run_id}*"):
            if other != folder:
                self._superseded.mkdir(exist_ok=True)
                os.replace(other, self._superseded / other.name)

    def _fail(self, why: str) -> None:
        if not self._failed:
            self._failed = True
            self._warn(f"wandb is off for the rest of this run: {why}")


def read_lines(path: Path, *, before: int) -> Iterator[Metrics]:
    """The lines of metrics.jsonl of steps before ``before``, which nobody is writing any more."""
    with open(path, encoding="utf-8") as file:
        yield from takewhile(lambda line: line["step"] < before, map(json.loads, file))


def _tear_down() -> None:
    """End wandb's own process; without it the end of this one would wait for that for ever."""
    if (wandb := sys.modules.get("wandb")) is not None:
        with suppress(Exception):
            wandb.teardown()


def _kill() -> None:
    """Kill wandb's own process, so that whoever waits for it goes on with an error."""
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if child.name() == "wandb-core":
                child.kill()


def _answers(url: str) -> bool:
    """Whether a server answers there, in whatever way."""
    try:
        urllib.request.urlopen(url, timeout=NETWORK_TIMEOUT).close()
    except OSError as error:
        return isinstance(error, urllib.error.HTTPError)
    return True
