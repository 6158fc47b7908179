"""The chain of jobs that scores a corpus, filters it, and trains on the rest."""

import json

import pytest

from tests.slurm.conftest import Jobs

NAMES = ("prepare", "scoring model", "scores", "filter", "training")
OPTIONS = ("--nodes=1", "--ntasks-per-node=1", "--cpus-per-task=2")


def chain(jobs: Jobs, *arguments: str, **variables: str) -> tuple[int, str, str]:
    home = {"PRESENCE_HOME": str(jobs.home), "SBATCH_CPUS_PER_TASK": "2"}
    ended = jobs.cluster.command(
        jobs.home / "slurm" / "sequential.sh",
        *arguments,
        cwd=jobs.work,
        environment=jobs.environment | home | variables,
    )
    return ended.returncode, ended.stdout, ended.stderr


def run_chain(jobs: Jobs) -> str:
    """Wait for every job of a small chain; the number of the last one."""
    status, printed, error = chain(
        jobs, "tiny.yaml", str(jobs.work / "seq"), *OPTIONS, SHARDS="2", SCORING_STEPS="4", KEEP="0.5"
    )
    assert status == 0, error
    numbers = dict(zip(NAMES, (part.split()[-1] for part in printed.strip().split(", ")), strict=True))
    for name in NAMES:
        for job in [f"{numbers[name]}_0", f"{numbers[name]}_1"] if name == "scores" else [numbers[name]]:
            jobs.wait(job, "COMPLETED")
    return numbers["training"]


@pytest.mark.long
def test_every_job_waits_for_the_one_before(jobs: Jobs) -> None:
    last = run_chain(jobs)
    work = jobs.work / "seq"
    before, after = (json.loads((work / name / "corpus.json").read_text()) for name in ("corpus", "filtered"))
    counts = [sum(one["samples"] for one in corpus["report"]["train"].values()) for corpus in (before, after)]
    assert counts[1] == pytest.approx(0.5 * counts[0], abs=1)
    assert json.loads((work / "scoring_model-4" / "summary.json").read_text())["steps"] == 4
    assert f"presence: finished: {work / 'training'}" in jobs.log(last)
    made = (work / "training" / "summary.json").stat().st_mtime_ns
    assert jobs.log(run_chain(jobs)) == f"presence: finished: {work / 'training'}\n"  # all of it is there
    assert (work / "training" / "summary.json").stat().st_mtime_ns == made


def test_what_cannot_be_a_chain(jobs: Jobs) -> None:
    for arguments, variables, wrong in (
        (["tiny.yaml"], {}, "usage: [SHARDS=8] [KEEP=0.8] [SCORING_STEPS=1000] "),
        (["none.yaml", "seq"], {}, f"recipe is none.yaml: there is no such file in {jobs.work}"),
        (["tiny.yaml", "seq"], {"SHARDS": "all"}, "SHARDS is all: it must be a number of jobs"),
    ):
        status, printed, error = chain(jobs, *arguments, **variables)
        assert (status, printed) == (2, "")
        assert error.startswith(f"presence: error: {wrong}")


def test_a_command_is_named(jobs: Jobs) -> None:
    command = ["sbatch", jobs.home / "slurm" / "command.sbatch"]
    environment = jobs.environment | {"PRESENCE_HOME": str(jobs.home), "SBATCH_CPUS_PER_TASK": "1"}
    submitted = jobs.cluster.command(*command, cwd=jobs.work, environment=environment)
    job = submitted.stdout.split()[-1]
    jobs.wait(job, "FAILED")
    assert jobs.log(job).startswith("presence: error: no command was given")
