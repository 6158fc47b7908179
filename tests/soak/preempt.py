"""Jobs on a real Slurm that are preempted again and again: each run must be the run that nothing disturbed.

    python -m tests.soak.preempt --preemptions 20 --seed 0

Starts a cluster in a temporary folder (`tests.slurm.cluster`) and submits slurm/train_preemptible.sbatch
with two ranks, ZeRO 2 and 3 in turn. At random instants, starts included, the batch script is sent USR1 as ahead of a
time limit, or the job is taken off its nodes by `scontrol requeue`. Prints what was done and ends with the count; exit
status 1 and the job's log if a job does not go on or anything a run leaves differs.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.slurm.cluster import Cluster, missing_programs
from tests.slurm.conftest import SITE, Jobs
from tests.slurm.test_preemption import ONE_NODE, OPTIONS, what_must_agree
from tests.trainer.conftest import ROOT, WORDS, write_recipe

VARIABLES = {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def make_jobs(cluster: Cluster, folder: Path) -> Jobs:
    """Templates with a site file, and a recipe."""
    home, work = folder / "home", folder / "work"
    shutil.copytree(ROOT / "slurm", home / "slurm", ignore=shutil.ignore_patterns("site.sh"))
    (home / "slurm" / "site.sh").write_text(SITE)
    work.mkdir()
    corpus = work / "lines.jsonl"
    with open(corpus, "w") as file:
        for index in range(400):
            words = [WORDS[(index * 7 + position * (1 + index % 5)) % len(WORDS)] for position in range(40)]
            file.write(json.dumps({"text": f"{index} " + " ".join(words), "id": f"d{index}"}) + "\n")
    write_recipe(work / "tiny.yaml", corpus)
    return Jobs(cluster, home, work, VARIABLES)


def preempt(jobs: Jobs, job: str, kind: str) -> None:
    """Do to a running job what a cluster does."""
    if kind == "USR1":
        jobs.cluster.command("scancel", "--batch", "--signal=USR1", job)
    else:
        jobs.cluster.command("scontrol", "requeue", job)


def go(jobs: Jobs, stage: int, preemptions: int, rng: random.Random, done: Counter[str]) -> None:
    """One undisturbed run, and disturbed ones until a job has been preempted so often.

    Raises:
        AssertionError, TimeoutError: with the job's log.
    """
    options = [*OPTIONS, "--deepspeed", str(ROOT / "ds_configs" / f"zero{stage}.json")]

    def submit(name: str) -> tuple[str, Path]:
        run_dir = jobs.work / name
        job = jobs.submit("train_preemptible.sbatch", *options, options=ONE_NODE, RUN_DIR=str(run_dir))
        return job, run_dir

    job, reference = submit(f"zero{stage}")
    began = time.monotonic()
    jobs.wait(job, "COMPLETED")
    duration = time.monotonic() - began
    expected = what_must_agree(reference)
    left = preemptions
    while left:
        job, run_dir = submit(f"zero{stage}-run{done['runs']}")
        done["runs"] += 1
        restarts = 0
        while jobs.state(job) != "COMPLETED":
            jobs.wait(job, "RUNNING", "COMPLETED")
            if left:
                time.sleep(rng.uniform(0.0, 0.8 * duration))
            if not left or jobs.state(job) != "RUNNING":
                jobs.wait(job, "COMPLETED")
                break
            kind = rng.choice(["USR1", "scontrol requeue"])
            preempt(jobs, job, kind)
            restarts += 1
            jobs.wait_for_restart(job, restarts)
            done[kind] += 1
            left -= 1
            newest = max((path.name for path in run_dir.glob("checkpoints/step_*")), default="no checkpoint")
            print(f"  ZeRO-{stage}: {kind}, {newest}", flush=True)
        assert what_must_agree(run_dir) == expected, f"{run_dir} differs from {reference}"
        print(f"ZeRO-{stage}: run {done['runs']} is the undisturbed one, to the last bit", flush=True)


def main() -> None:
    """See the module's documentation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preemptions", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if missing := missing_programs():
        sys.exit(f"Slurm is not installed ({', '.join(missing)}): make slurm-packages")
    done: Counter[str] = Counter()
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(Path(folder) / "slurm")
        try:
            cluster.start()
            jobs = make_jobs(cluster, Path(folder))
            for number, stage in enumerate((2, 3)):
                go(jobs, stage, (arguments.preemptions + number) // 2, rng, done)
        except (AssertionError, TimeoutError) as error:
            sys.exit(f"FAILED after {done.total() - done['runs']} preemptions: {error}")
        finally:
            cluster.stop()
    runs = done.pop("runs")
    print(f"{done.total()} preemptions, {runs} runs, every run is the undisturbed one")
    for kind, number in sorted(done.items()):
        print(f"  {number:4d}  {kind}")


if __name__ == "__main__":
    main()
