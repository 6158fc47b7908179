"""An array of runs, each with its own values."""

import yaml

from tests.slurm.conftest import Jobs
from tests.slurm.test_training import SHORT

ONE_RANK = ("--nodes=1", "--ntasks-per-node=1", "--cpus-per-task=1")


def test_every_run_of_an_array_has_its_values(jobs: Jobs) -> None:
    variables = {"TAUS": "0.5 2", "LAYERS": '["*mlp*"]', "SEEDS": "3", "SWEEP_DIR": str(jobs.work / "sweep")}
    options = (*ONE_RANK, "--array=0-1")
    job = jobs.submit("sweep.sbatch", *SHORT, "--num_processes", "1", options=options, **variables)
    for index, tau in enumerate((0.5, 2.0)):
        jobs.wait(f"{job}_{index}", "COMPLETED")
        recipe = yaml.safe_load((jobs.work / "sweep" / f"tau{tau:g}--mlp--seed3" / "recipe.yaml").read_text())
        schedule = recipe["presence"]["schedule"]
        assert [schedule["tau_direct"], schedule["tau_inverse"]] == [tau, -tau]
        assert recipe["presence"]["layers"] == ["*mlp*"]
        assert [recipe["training"]["seed"], recipe["data"]["seed"]] == [3, 3]
        assert (jobs.work / "sweep" / f"tau{tau:g}--mlp--seed3" / "summary.json").is_file()
