"""A run that is preempted and requeued: in the end it is the run that nothing disturbed, to the last bit."""

from pathlib import Path
from typing import Any

from tests.slurm.conftest import Jobs
from tests.trainer.checkpoint.runs import left_by
from tests.trainer.conftest import read_metrics

STEPS = 150
OPTIONS = ["--training.steps", str(STEPS), "--evaluation.every_steps", "75", "--checkpoint.every_steps", "50"]
OPTIONS += ["--logging.every_steps", "1"]
ONE_NODE = ("--nodes=1", "--ntasks-per-node=2", "--cpus-per-task=2")  # two ranks with no launcher: the fastest start
TWO_NODES = ("--nodes=2",)
PER_NODE = ["--num_processes", "1"]


def undisturbed(jobs: Jobs) -> dict[str, Any]:
    run_dir = jobs.work / "undisturbed"
    job = jobs.submit("train_task_per_gpu.sbatch", *OPTIONS, options=ONE_NODE, RUN_DIR=str(run_dir))
    jobs.wait(job, "COMPLETED")
    return what_must_agree(run_dir)


def what_must_agree(run_dir: Path) -> dict[str, Any]:
    left = left_by(run_dir)
    for line in left["metrics"]:
        del line["slurm_restart_count"]
    return left


def test_signal_and_requeue(jobs: Jobs) -> None:
    """USR1 to the batch script, as ahead of the limit; then `scontrol requeue`, as when others need the nodes."""
    run_dir = jobs.work / "run"
    wandb = ["--wandb.enabled", "true", "--wandb.mode", "offline"]
    job = jobs.submit("train_preemptible.sbatch", *OPTIONS, *PER_NODE, *wandb, options=TWO_NODES, RUN_DIR=str(run_dir))
    jobs.wait_for_step(job, run_dir, 3)
    jobs.cluster.command("scancel", "--batch", "--signal=USR1", job)
    jobs.wait_for_restart(job, 1)
    assert "wandb is off" not in jobs.log(job)
    assert "presence: signal, newest checkpoint step_" in jobs.log(job)
    jobs.wait_for_step(job, run_dir, 1)
    jobs.cluster.command("scontrol", "requeue", job)
    jobs.wait_for_restart(job, 2)
    ended = jobs.wait(job, "COMPLETED")
    assert ended["Restarts"] == "2"
    assert {line["slurm_restart_count"] for line in read_metrics(run_dir)} == {0, 1, 2}
    assert jobs.log(job).count(f"presence: finished: {run_dir}") == 1
    run_id = (run_dir / "wandb_run_id").read_text().strip()
    assert [path.name for path in (run_dir / "wandb").glob("offline-run-*/*.wandb")] == [f"run-{run_id}.wandb"] * 3
    assert what_must_agree(run_dir) == undisturbed(jobs)
