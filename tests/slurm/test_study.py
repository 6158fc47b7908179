"""A study as a job array."""

import shutil

import yaml

from study.plan import PLANS
from study.results import read_rows
from tests.slurm.conftest import Jobs
from tests.study.texts import write_texts
from tests.trainer.conftest import ROOT


def test_tasks_of_an_array_share_the_cells(jobs: Jobs) -> None:
    for folder in ("study", "benchmarks"):
        shutil.copytree(ROOT / folder, jobs.home / folder, ignore=shutil.ignore_patterns("__pycache__"))
    values = yaml.safe_load((PLANS / "smoke.yaml").read_text(encoding="utf-8"))
    values["contrasts"]["main"]["arms"] = ["uniform"]
    plan = jobs.work / "plan.yaml"
    plan.write_text(yaml.safe_dump(values), encoding="utf-8")
    arguments = (plan, jobs.work / "runs", write_texts(jobs.work / "texts"), "--workers", "1")

    def submit(array: str) -> str:
        options = ("--nodes=1", "--ntasks-per-node=1", "--cpus-per-task=1", f"--array={array}")
        command = ["sbatch", *options, jobs.home / "study" / "array.sbatch", *arguments]
        environment = jobs.environment | {"PRESENCE_HOME": str(jobs.home)}
        submitted = jobs.cluster.command(*command, cwd=jobs.work, environment=environment)
        assert submitted.returncode == 0, submitted.stderr
        return submitted.stdout.split()[-1]

    job = submit("2-3")
    jobs.wait(f"{job}_2", "FAILED")
    assert "presence: error: the array has 2 tasks up to 3: use --array=1-N" in jobs.log(job)
    job = submit("1-2")
    for task in (1, 2):
        jobs.wait(f"{job}_{task}", "COMPLETED")
    assert sorted(row.cell["seed"] for row in read_rows(jobs.work / "runs" / "rows")) == [0, 1]
