import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

if os.environ.get("PRESENCE_GPU_TESTS") == "cpu":
    torch.set_num_threads(1)  # threads that wait for each other are slow on a busy machine


@pytest.fixture(scope="session")
def rank(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A process group of this process alone, for DeepSpeed, which keeps it as long as the process lives.

    NCCL for what is on the GPU, as in training, and gloo for what tests of other folders have on the CPU.
    """
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1")
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(0)
        backend = "cpu:gloo,cuda:nccl"
    if not dist.is_initialized():
        store = dist.FileStore(str(Path(tmp_path_factory.mktemp("store"), "store")), 1)
        dist.init_process_group(backend, store=store, rank=0, world_size=1)
