"""Two-node runs by every template that trains once."""

import json

from tests.slurm.conftest import Jobs
from tests.trainer.conftest import ROOT, read_metrics

SHORT = ["--training.steps", "6", "--evaluation.every_steps", "6", "--checkpoint.every_steps", "4"]
SHORT += ["--logging.every_steps", "1"]
TWO_NODES = ("--nodes=2", "--time=10")


def test_zero_2_with_a_launcher_on_every_node(jobs: Jobs) -> None:
    run_dir = jobs.work / "run"
    job = jobs.submit("train.sbatch", *SHORT, "--num_processes", "1", options=TWO_NODES, RUN_DIR=str(run_dir))
    jobs.wait(job, "COMPLETED")
    log = jobs.log(job)
    for node in (0, 1):
        assert f"starting 1 ranks on node {node} of 2" in log
    assert "x 2 ranks" in log
    assert "health: 2 devices" in log
    assert f"presence: finished: {run_dir}" in log
    assert [(line["step"], line["slurm_restart_count"]) for line in read_metrics(run_dir)] == [
        (step, 0) for step in range(1, 7)
    ]
    assert (run_dir / "logs" / "rank_00001.log").is_file()


def test_zero_3_with_a_task_per_rank(jobs: Jobs) -> None:
    """Without a name, in a directory by the number of the job."""
    zero_3 = str(ROOT / "ds_configs" / "zero3.json")
    options = (*TWO_NODES, "--ntasks-per-node=1", "--cpus-per-task=2")
    job = jobs.submit(
        "train_task_per_gpu.sbatch", *SHORT, "--deepspeed", zero_3, options=(*options, "-n4", "--ntasks-per-node=2")
    )
    jobs.wait(job, "COMPLETED")
    log = jobs.log(job)
    assert "ZeRO-3" in log
    assert "x 4 ranks" in log
    run_dir = jobs.work / "runs" / f"tiny-{job}"
    assert json.loads((run_dir / "summary.json").read_text())["steps"] == 6
    assert sorted(path.name for path in (run_dir / "logs").iterdir()) == [f"rank_0000{n}.log" for n in (1, 2, 3)]
