"""A cluster for the session, and jobs on it. Run by `make test-slurm`."""

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.slurm.cluster import PACKAGES, Cluster, missing_programs, wait_for
from tests.trainer.conftest import ROOT, corpus_file, environment, write_recipe

__all__ = ["corpus_file", "environment"]
RUNNING = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "REQUEUED")
LONG_ENOUGH = 240.0  # seconds for a start, a few steps and an end
SITE = f"""
PRESENCE_PYTHON={sys.executable}
MIN_FREE_GIB=1
export WANDB_MODE=offline HF_HUB_OFFLINE=1
"""


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if missing := missing_programs():
        pytest.skip(f"Slurm is not installed ({', '.join(missing)}): install {PACKAGES}, as make slurm-packages does")
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@dataclass
class Jobs:
    """Templates with a site file, and what is submitted with them from one working directory.

    Attributes:
        home: PRESENCE_HOME of the jobs: the templates of the repository, and a site file.
        work: where jobs are submitted; holds a recipe, tiny.yaml.
        requeued: when a job was first seen to wait for its next start, by job and number of restarts.
    """

    cluster: Cluster
    home: Path
    work: Path
    environment: dict[str, str]
    requeued: dict[tuple[str, str], float] = field(default_factory=dict)

    def sbatch(
        self, template: str, *arguments: str | Path, options: tuple[str, ...] = (), **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Submit a template with the tiny recipe, or test that it could be (``options`` has --test-only)."""
        command = ["sbatch", *options, self.home / "slurm" / template, "tiny.yaml", *arguments]
        environment = self.environment | {"PRESENCE_HOME": str(self.home)} | variables
        return self.cluster.command(*command, cwd=self.work, environment=environment)

    def submit(self, template: str, *arguments: str | Path, options: tuple[str, ...] = (), **variables: str) -> str:
        """Submit a job that has to be accepted; its number."""
        submitted = self.sbatch(template, *arguments, options=options, **variables)
        found = re.fullmatch(r"Submitted batch job (\d+)\n", submitted.stdout)
        assert found is not None, submitted.stderr
        return found[1]

    def log(self, job: str) -> str:
        """What a job has printed so far."""
        return "".join(path.read_text() for path in sorted(self.work.glob(f"*-{job}*.log")))

    def wait(self, job: str, *states: str) -> dict[str, str]:
        """Wait until a job is in one of ``states``; what SLURM says of it."""
        ended = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"}
        wait_for(lambda: self.state(job) in {*states, *ended}, f"job {job}: {self.log(job)}", LONG_ENOUGH)
        found = self.cluster.job(job)
        assert found["JobState"] in states, self.log(job)
        return found

    def state(self, job: str) -> str:
        """State of a job; a requeued one need not wait the two minutes that SLURM gives it.

        But some seconds: SLURM refuses to start a job within the second in which it was ended (credential revoked).
        """
        found = self.cluster.job(job)
        if found["JobState"] == "PENDING" and found["Reason"] == "BeginTime":
            since = self.requeued.setdefault((job, found["Restarts"]), time.monotonic())
            if time.monotonic() > since + 3.0:
                self.cluster.command("scontrol", "update", f"JobId={job}", "StartTime=now")
        return found["JobState"]

    def wait_for_step(self, job: str, run_dir: Path, step: int) -> None:
        """Wait until this start of a job has logged so many optimizer steps of a run."""

        def logged() -> bool:
            assert self.state(job) in RUNNING, self.log(job)
            count = self.cluster.job(job)["Restarts"]
            path = run_dir / "metrics.jsonl"
            return path.is_file() and path.read_text().count(f'"slurm_restart_count": {count},') >= step

        wait_for(logged, f"job {job}: {self.log(job)}", LONG_ENOUGH)

    def wait_for_restart(self, job: str, count: int) -> None:
        """Wait until a job has been requeued so many times."""

        def requeued() -> bool:
            assert self.state(job) in RUNNING, self.log(job)
            return self.cluster.job(job)["Restarts"] == str(count)

        wait_for(requeued, f"job {job}: {self.log(job)}", LONG_ENOUGH)


@pytest.fixture
def jobs(cluster: Cluster, environment: dict[str, str], corpus_file: Path, tmp_path: Path) -> Iterator[Jobs]:
    home, work = tmp_path / "home", tmp_path / "work"
    shutil.copytree(ROOT / "slurm", home / "slurm", ignore=shutil.ignore_patterns("site.sh"))
    (home / "slurm" / "site.sh").write_text(SITE)
    work.mkdir()
    write_recipe(work / "tiny.yaml", corpus_file)
    variables = {name: value for name, value in environment.items() if not name.startswith(("SLURM", "SBATCH", "PATH"))}
    yield Jobs(cluster, home, work, variables)
    cluster.command("scancel", "--me")
    wait_for(lambda: not cluster.command("squeue", "--noheader").stdout.strip(), "jobs do not end")
