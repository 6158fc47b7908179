"""`presence slurm`: what it refuses at submission, what it shows, and a run that it submits."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from presence_ds.cli import main
from tests.slurm.conftest import SITE, Jobs
from tests.slurm.test_training import SHORT

Run = Callable[..., tuple[object, str, str]]


@pytest.fixture
def presence_slurm(jobs: Jobs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """``presence slurm tiny.yaml ARGUMENTS`` in the repository of ``jobs``: status, output, errors."""
    monkeypatch.chdir(jobs.home)
    for name, value in (jobs.environment | jobs.cluster.environment).items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str | Path) -> tuple[object, str, str]:
        status: object = 0
        try:
            main(["slurm", str(jobs.work / "tiny.yaml"), *map(str, arguments)])
        except SystemExit as ended:
            status = ended.code
        return (status, *capsys.readouterr())

    return run


def test_what_is_refused_at_submission(jobs: Jobs, presence_slurm: Run) -> None:
    site = jobs.home / "slurm" / "site.sh"
    occupied = jobs.work / "file"
    occupied.touch()

    def refused(text: str, *arguments: str | Path) -> None:
        status, _, errors = presence_slurm(*arguments)
        assert status == 1
        assert errors.startswith(f"presence: error: {text}")
        assert errors.count("\n") == 1

    refused("sbatch refuses the job: sbatch: error: invalid partition specified: nowhere", "--partition=nowhere")
    refused("sbatch refuses the job: allocation failure: Requested node configuration is not", "--nodes=4")
    refused("training.steps is 0: it must be at least 1", "--training.steps=0")
    refused(f"run_dir is {occupied}/run: it cannot be made", "--run_dir", occupied / "run")
    site.write_text(SITE + "export SBATCH_PARTITION=elsewhere\n")
    refused("sbatch refuses the job: sbatch: error: invalid partition specified: elsewhere", "--nodes=2")
    site.unlink()
    refused(f"{site} is missing: cp {site.with_name('site.example.sh')} {site}, and edit it")
    assert not (jobs.home / "runs").exists()


def test_a_dry_run_leaves_nothing_and_a_submission_trains(
    jobs: Jobs, presence_slurm: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a folder with a site file and no templates: those of the package are used."""
    monkeypatch.chdir(jobs.work)
    (jobs.work / "site.sh").write_text(SITE.replace("PRESENCE_PYTHON=", "# "))  # the job has the Python of this process
    run_dir = jobs.work / "run"
    arguments = [*SHORT, "--run_dir", run_dir, "--time", "10", "--template", "train_task_per_gpu"]
    arguments += ["--sbatch", '{"cpus-per-task": "2"}']
    status, shown, errors = presence_slurm(*arguments, "--nodes", "2", "--dry-run")
    assert status == 0, errors
    assert "#SBATCH --nodes=2\n" in shown
    assert "2 nodes x 2 ranks; sbatch: Job " in shown
    assert not run_dir.exists()
    status, submitted, errors = presence_slurm(*arguments)
    assert status == 0, errors
    assert submitted.startswith("job ")
    job = submitted.split()[1].rstrip(":")
    ended = jobs.wait(job, "COMPLETED")
    assert ended["JobName"] == "presence-run"
    log = (run_dir / "slurm" / f"presence-run-{job}.log").read_text()
    assert "x 2 ranks" in log
    assert f"presence: finished: {run_dir}" in log
    assert json.loads((run_dir / "summary.json").read_text())["steps"] == 6
    status, _, errors = presence_slurm(*arguments)
    assert status == 1
    assert "it holds a run that has finished its 6 steps; name a new directory" in errors
