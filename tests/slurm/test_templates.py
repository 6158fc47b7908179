"""Every template is clean and accepted, and says in one line what is missing."""

import shutil
import subprocess

import pytest

from tests.slurm.conftest import SITE, Jobs
from tests.trainer.conftest import ROOT

TEMPLATES = sorted(path.name for path in (ROOT / "slurm").glob("*.sbatch"))
SHELL = sorted(path.name for path in (ROOT / "slurm").glob("*.sh") if path.name != "site.sh")
SCRIPTS = [*(f"slurm/{name}" for name in (*TEMPLATES, *SHELL)), "study/array.sbatch"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_shellcheck(script: str) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed: make slurm-packages")
    checked = subprocess.run(
        ["shellcheck", "--external-sources", f"--source-path={ROOT}", ROOT / script],
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("template", TEMPLATES)
def test_what_slurm_accepts(template: str, jobs: Jobs) -> None:
    """A partition that does not exist and nodes that do not are refused at submission."""
    tested = jobs.sbatch(template, options=("--test-only",))
    assert tested.returncode == 0, tested.stderr
    assert "to start at" in tested.stderr
    for option, text in (("--partition=nowhere", "invalid partition"), ("--nodes=9", "node configuration")):
        refused = jobs.sbatch(template, options=("--test-only", option))
        assert refused.returncode != 0
        assert text in refused.stderr


def test_jobs_that_cannot_run_say_why_in_one_line(jobs: Jobs) -> None:
    """At once, before the trainer is started."""
    home, work = jobs.home, jobs.work
    site = home / "slurm" / "site.sh"

    def refused(
        text: str, template: str = "train.sbatch", settings: str | None = SITE, array: int = 0, **variables: str
    ) -> None:
        site.unlink(missing_ok=True)
        if settings is not None:
            site.write_text(settings)
        job = jobs.submit(template, options=("--nodes=1", "--ntasks-per-node=1", f"--array={array}"), **variables)
        jobs.wait(job, "FAILED")
        log = jobs.log(job)
        assert log.startswith(f"presence: error: {text}"), log
        assert log.count("\n") == 1

    (work / "file").touch()
    (work / "full" / "slurm" / "started").mkdir(parents=True)
    for template in TEMPLATES:
        refused(f"{site} is missing: cp {home}/slurm/site.example.sh {site}, edit it", template, None)
    refused(f"run_dir is {work}/file/run: it cannot be made; name a directory", RUN_DIR=str(work / "file" / "run"))
    refused(f"run_dir is {work}/full: nothing can be written there", RUN_DIR=str(work / "full"))
    refused(f"run_dir is {work}/run: ", settings=SITE + "MIN_FREE_GIB=1000000", RUN_DIR=str(work / "run"))
    refused(f"{work} has no slurm/common.sh: submit from the repository", PRESENCE_HOME=str(work))
    refused("the job has no GPUs", settings=SITE + "export SBATCH_GPUS_PER_NODE=8")
    refused("CONTAINER is podman in the site file: it must be none", settings=SITE + "CONTAINER=podman")
    refused("there is no run 8: TAUS, LAYERS and SEEDS make 8, --array=0-7", "sweep.sbatch", array=8, TAUS="1 2")


def test_containers_are_given_what_they_have_to_run(jobs: Jobs) -> None:
    """Neither runtime is here: a stand-in for apptainer shows what it was told, and srun does not know pyxis."""
    runtime = jobs.work / "apptainer"
    runtime.write_text('#!/bin/sh\nwhile [ "$1" != image.sif ]; do echo "$1"; shift; done; shift; exec "$@"\n')
    runtime.chmod(0o755)
    settings = SITE + "PRESENCE_PYTHON=echo\nCONTAINER_IMAGE=image.sif CONTAINER_MOUNTS=/shared\n"
    site = jobs.home / "slurm" / "site.sh"
    site.write_text(f'{settings}CONTAINER=apptainer\nPATH="{jobs.work}:$PATH"\n')
    run_dir = str(jobs.work / "run")
    job = jobs.submit("train.sbatch", "--training.steps", "7", options=("--nodes=1",), RUN_DIR=run_dir)
    jobs.wait(job, "FAILED")  # nothing was trained
    assert jobs.log(job).splitlines() == [
        *("exec", "--nv", "--bind", "/shared", "--pwd", str(jobs.work)),
        f"-m presence_ds train tiny.yaml --training.steps 7 --run_dir {run_dir}",
        f"presence: failed: {run_dir}",
    ]
    site.write_text(settings + "CONTAINER=pyxis\n")
    job = jobs.submit("train.sbatch", options=("--nodes=1",), RUN_DIR=run_dir)
    jobs.wait(job, "FAILED")
    assert "unrecognized option '--container-image=image.sif'" in jobs.log(job)
