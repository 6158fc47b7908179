"""Weights & Biases: the numbers of metrics.jsonl as they are written. Nothing that fails here ends a run."""

from __future__ import annotations

import signal
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from presence_ds.trainer.callbacks.callback import Callback
from presence_ds.trainer.run_directory import RunDirectory, write_atomically
from presence_ds.trainer.wandb_config import WandbConfig

if TYPE_CHECKING:
    from presence_ds.trainer.trainer import Metrics, Trainer

NETWORK_TIMEOUT = 5.0  # seconds
INIT_TIMEOUT = 60.0  # seconds
FINISH_TIMEOUT = 60.0  # seconds that the end of a run waits for the upload; `wandb sync` sends the rest


class WandbRun(Callback):
    """One wandb run per run directory; its id is kept there, so that a resumed run goes on in it."""

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
            warn: takes the one line about a failure.
            signals: numbers of those that wandb's own process is to ignore: SLURM sends them to every process of a job,
                and the last steps are still to be written then. SIGTERM it takes in any case.
        """
        self._config = config
        self._directory = directory
        self._resolved = resolved
        self._warn = warn
        self._signals = signals
        self._run: Any = None

    def on_train_start(self, trainer: Trainer) -> None:
        with self._never_fail(), _blocked(self._signals):
            import wandb

            run_id_file = self._directory.wandb_run_id
            run_id = run_id_file.read_text().strip() if run_id_file.is_file() else uuid.uuid4().hex[:8]
            write_atomically(run_id_file, run_id + "\n")
            self._run = wandb.init(
                project=self._config.project,
                entity=self._config.entity,
                group=self._config.group,
                name=self._config.name or self._directory.name,
                id=run_id,
                resume="allow",
                dir=str(self._directory.path),
                mode=self._mode(),
                config=self._resolved,
                settings=wandb.Settings(
                    init_timeout=INIT_TIMEOUT, finish_timeout=FINISH_TIMEOUT, console="off", silent=True
                ),
            )
            self._run.define_metric("*", step_metric="step")

    def on_log(self, trainer: Trainer, metrics: Metrics) -> None:
        if self._run is not None:
            with self._never_fail():
                self._run.log(dict(metrics))

    def close(self) -> None:
        if self._run is not None:
            with self._never_fail():
                self._run.finish()

    def _mode(self) -> Literal["online", "offline"]:
        import wandb

        if self._config.mode != "auto":
            return self._config.mode
        if not wandb.login(prompt=False, verify=False):
            return "offline"
        return "online" if _answers(wandb.setup().settings.base_url) else "offline"

    @contextmanager
    def _never_fail(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._run = None
            self._warn(f"wandb is off for the rest of this run: {' '.join(str(error).split()) or repr(error)}")


@contextmanager
def _blocked(signals: Sequence[int]) -> Iterator[None]:
    """A process that is started inside has the signals blocked for good; here they are handled afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _answers(url: str) -> bool:
    """Whether a server answers there, in whatever way."""
    try:
        urllib.request.urlopen(url, timeout=NETWORK_TIMEOUT).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True
