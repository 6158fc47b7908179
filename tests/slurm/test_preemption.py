"""A run that is preempted and requeued: in the end it is the run that nothing disturbed, to the last bit."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from presence_ds.trainer.trackers.wandb_file import steps_in
from tests.slurm.conftest import Jobs
from tests.trainer.checkpoint.runs import left_by
from tests.trainer.conftest import read_metrics

STEPS = 80
OPTIONS = ["--training.steps", str(STEPS), "--evaluation.every_steps", "40", "--checkpoint.every_steps", "30"]
OPTIONS += ["--logging.every_steps", "1"]
ONE_NODE = ("--nodes=1", "--ntasks-per-node=2", "--cpus-per-task=2")  # two ranks with no launcher: the fastest start
TWO_NODES = ("--nodes=2",)
PER_NODE = ["--num_processes", "1"]


def undisturbed(jobs: Jobs) -> dict[str, Any]:
    """What a run leaves that was let alone; trained once for all tests."""
    if not _undisturbed:
        run_dir = jobs.work / "undisturbed"
        job = jobs.submit("train_task_per_gpu.sbatch", *OPTIONS, options=ONE_NODE, RUN_DIR=str(run_dir))
        jobs.wait(job, "COMPLETED")
        _undisturbed.update(what_must_agree(run_dir))
    return _undisturbed


def what_must_agree(run_dir: Path) -> dict[str, Any]:
    left = left_by(run_dir)
    for line in left["metrics"]:
        del line["slurm_restart_count"]
    return left


_undisturbed: dict[str, Any] = {}


def test_signal_to_launchers_on_two_nodes(jobs: Jobs) -> None:
    """USR1 to the batch script, as ahead of the limit; wandb goes on in the same run."""
    run_dir = jobs.work / "run"
    options = [*OPTIONS, *PER_NODE, "--wandb.enabled", "true", "--wandb.mode", "offline"]
    job = jobs.submit("train_preemptible.sbatch", *options, options=TWO_NODES, RUN_DIR=str(run_dir))
    jobs.wait_for_step(job, run_dir, 3)
    jobs.cluster.command("scancel", "--batch", "--signal=USR1", job)
    jobs.wait_for_restart(job, 1)
    assert "wandb is off" not in jobs.log(job)
    assert "presence: signal, newest checkpoint step_" in jobs.log(job)
    assert jobs.wait(job, "COMPLETED")["Restarts"] == "1"
    assert {line["slurm_restart_count"] for line in read_metrics(run_dir)} == {0, 1}
    assert jobs.log(job).count(f"presence: finished: {run_dir}") == 1
    run_id = (run_dir / "wandb_run_id").read_text().strip()
    files = list((run_dir / "wandb").glob("offline-run-*/*.wandb"))
    assert [file.name for file in files] == [f"run-{run_id}.wandb"]  # the last start's has the whole history
    assert steps_in(files[0]) == [line["step"] for line in read_metrics(run_dir)]
    assert what_must_agree(run_dir) == undisturbed(jobs)


def test_requeue_of_a_task_per_rank(jobs: Jobs) -> None:
    """`scontrol requeue`, as when a job of higher priority takes the nodes."""
    run_dir = jobs.work / "run"
    job = jobs.submit("train_preemptible.sbatch", *OPTIONS, options=ONE_NODE, RUN_DIR=str(run_dir))
    jobs.wait_for_step(job, run_dir, 3)
    jobs.cluster.command("scontrol", "requeue", job)
    jobs.wait_for_restart(job, 1)
    assert jobs.wait(job, "COMPLETED")["Restarts"] == "1"
    assert what_must_agree(run_dir) == undisturbed(jobs)


@pytest.mark.long
def test_a_node_goes_down(jobs: Jobs) -> None:
    """The ranks of the other node lose their peers; the job goes on with a third node."""
    run_dir = jobs.work / "run"
    job = jobs.submit("train_preemptible.sbatch", *OPTIONS, *PER_NODE, options=TWO_NODES, RUN_DIR=str(run_dir))
    jobs.wait_for_step(job, run_dir, 35)
    node = jobs.cluster.nodes[1]
    jobs.cluster.kill_node(node)
    jobs.wait_for_restart(job, 1)
    assert jobs.wait(job, "COMPLETED")["NodeList"] == "127.0.0.[11,13]"
    jobs.cluster.start_node(node)
    assert {line["slurm_restart_count"] for line in read_metrics(run_dir)} == {0, 1}
    assert what_must_agree(run_dir) == undisturbed(jobs)


@pytest.mark.long
def test_a_run_that_fails_before_its_next_checkpoint_is_not_requeued(jobs: Jobs) -> None:
    """A rank is killed: once after a checkpoint, once before the next one."""
    run_dir = jobs.work / "run"
    job = jobs.submit("train_preemptible.sbatch", *OPTIONS, options=ONE_NODE, RUN_DIR=str(run_dir))
    jobs.wait_for_step(job, run_dir, 31)
    kill_a_rank(run_dir)
    jobs.wait_for_restart(job, 1)
    assert "presence: failed, newest checkpoint step_00000030" in jobs.log(job)
    jobs.wait_for_step(job, run_dir, 1)
    kill_a_rank(run_dir)
    assert jobs.wait(job, "FAILED")["Restarts"] == "1"
    assert jobs.log(job).endswith(f"presence: failed: {run_dir}\n")


def kill_a_rank(run_dir: Path) -> None:
    """Kill rank 1 of the run that holds the directory."""
    log = str(run_dir / "logs" / "rank_00001.log")
    (rank,) = [process for process in psutil.process_iter() if log in paths_open(process)]
    rank.kill()


def paths_open(process: psutil.Process) -> list[str]:
    with suppress(psutil.Error):
        return [file.path for file in process.open_files()]
    return []


@pytest.mark.long
def test_a_time_limit(jobs: Jobs) -> None:
    """SLURM itself sends the signal ahead of the limit, up to a minute too early."""
    run_dir = jobs.work / "run"
    options = ["--training.steps", "4000", *OPTIONS[2:], "--evaluation.every_steps", "4000"]
    limit = ("--time=2", "--signal=B:USR1@10")
    job = jobs.submit("train_preemptible.sbatch", *options, options=(*ONE_NODE, *limit), RUN_DIR=str(run_dir))
    jobs.wait_for_restart(job, 1)
    assert "presence: stopped by SIGUSR1 after step" in jobs.log(job)
    jobs.wait_for_step(job, run_dir, 1)
    (run_dir / "stop").touch()
    assert jobs.wait(job, "FAILED")["ExitCode"] == "75:0"
    assert jobs.log(job).endswith(f"presence: stop_file: {run_dir}\n")


@pytest.mark.long
def test_a_chain_of_jobs(jobs: Jobs) -> None:
    """The second goes on where the first one stopped, the third has nothing to do."""
    run_dir = jobs.work / "run"
    variables = {"RUN_DIR": str(run_dir), "PRESENCE_HOME": str(jobs.home)}
    submitted = jobs.cluster.command(
        jobs.home / "slurm" / "chain.sh",
        "3",
        *ONE_NODE,
        "--",
        "tiny.yaml",
        *OPTIONS,
        cwd=jobs.work,
        environment=jobs.environment | variables,
    )
    first, second, third = (line.split()[-1] for line in submitted.stdout.splitlines())
    jobs.wait_for_step(first, run_dir, 3)
    jobs.cluster.command("scancel", "--batch", "--signal=USR1", first)
    for job in (first, second, third):
        assert jobs.wait(job, "COMPLETED")["Restarts"] == "0"
    assert "the next job goes on" in jobs.log(first)
    assert f"presence: finished: {run_dir}" in jobs.log(second)
    assert jobs.log(third) == f"presence: finished: {run_dir}\n"
    assert what_must_agree(run_dir) == undisturbed(jobs)
