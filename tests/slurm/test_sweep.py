"""An array of runs, each with its own values."""

from itertools import product

import yaml

from tests.slurm.conftest import SITE, Jobs
from tests.slurm.test_training import SHORT

TWO_RANKS = ("--nodes=1", "--ntasks-per-node=2", "--cpus-per-task=2")


def test_a_run_of_an_array_has_its_values(jobs: Jobs) -> None:
    variables = {"TAUS": "0.5 2", "LAYERS": '["*mlp*"]', "SEEDS": "3", "SWEEP_DIR": str(jobs.work / "sweep")}
    job = jobs.submit("sweep.sbatch", *SHORT, options=(*TWO_RANKS, "--array=1"), **variables)
    jobs.wait(job, "COMPLETED")
    run_dir = jobs.work / "sweep" / "tau2--mlp--seed3"
    recipe = yaml.safe_load((run_dir / "recipe.yaml").read_text())
    schedule = recipe["presence"]["schedule"]
    assert [schedule["tau_direct"], schedule["tau_inverse"]] == [2.0, -2.0]
    assert recipe["presence"]["layers"] == ["*mlp*"]
    assert [recipe["training"]["seed"], recipe["data"]["seed"]] == [3, 3]
    assert (run_dir / "summary.json").is_file()


def test_every_combination_is_in_an_array_once(jobs: Jobs) -> None:
    """With nothing trained: the trainer's arguments are shown instead."""
    (jobs.home / "slurm" / "site.sh").write_text(SITE + "PRESENCE_PYTHON=echo\n")
    variables = {"TAUS": "0.5 1", "LAYERS": "all first", "SEEDS": "0 1"}
    job = jobs.submit("sweep.sbatch", options=("--nodes=1", "--cpus-per-task=1", "--array=0-7"), **variables)
    for index, (tau, layers, seed) in enumerate(product((0.5, 1), ("all", "first"), (0, 1))):
        jobs.wait(f"{job}_{index}", "FAILED")
        assert (jobs.work / f"presence-sweep-{job}_{index}.log").read_text().splitlines()[0] == (
            f"-m presence_ds train tiny.yaml --presence.layers {layers} --training.seed {seed} --data.seed {seed} "
            f"--presence.schedule.tau_direct={tau} --presence.schedule.tau_inverse=-{tau} "
            f"--run_dir {jobs.work}/runs/sweep-{job}/tau{tau}-{layers}-seed{seed}"
        )
