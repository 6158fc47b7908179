"""What is read from srun's variables, and what ranks are told; `tests/slurm` has the real srun."""

import pytest

from presence_ds.errors import ConfigError
from presence_ds.trainer.slurm import first_host, restart_count, slurm_step

STEP = {
    "SLURM_JOB_ID": "4711",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NODELIST": "gpu[007-008]",
}


def test_ranks_of_one_task_per_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    step = slurm_step(STEP)
    assert step is not None
    assert step.is_rank
    expected = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_SIZE": "4", "MASTER_ADDR": "gpu007"}
    assert step.rank_environment(4) == expected | {"MASTER_PORT": "24711"}
    assert step.rank_environment(1)["LOCAL_RANK"] == "0"  # bound to its own GPU
    monkeypatch.setenv("MASTER_ADDR", "gpu007-ib")
    monkeypatch.setenv("MASTER_PORT", "1234")
    assert (step.address, step.port) == ("gpu007-ib", 1234)


def test_a_place_for_a_launcher_and_no_step() -> None:
    step = slurm_step(STEP | {"SLURM_STEP_NUM_TASKS": "2"})
    assert step is not None
    assert not step.is_rank
    assert slurm_step({}) is None
    for outside in ("4294967291", "4294967290"):  # the batch script and an interactive step
        assert slurm_step(STEP | {"SLURM_STEP_ID": outside}) is None


def test_uneven_tasks_are_refused() -> None:
    with pytest.raises(ConfigError, match="srun has started 5 tasks on 2 nodes: give --ntasks-per-node"):
        slurm_step(STEP | {"SLURM_STEP_NUM_TASKS": "5"})


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("n1", "n1"), ("n[001-004,007],m1", "n001"), ("a3,b[1-2]", "a3"), ("r[0-1]n[12-13].site", "r0n12.site")],
)
def test_the_first_node(nodes: str, first: str) -> None:
    assert first_host(nodes) == first


def test_requeues_are_counted_in_a_job_alone() -> None:
    assert restart_count({}) is None
    assert restart_count({"SLURM_JOB_ID": "1"}) == 0
    assert restart_count({"SLURM_JOB_ID": "1", "SLURM_RESTART_COUNT": "3"}) == 3
