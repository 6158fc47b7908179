import random
from pathlib import Path

import numpy as np
import torch

from presence_ds.trainer.checkpoint.random_state import load_random_state, random_state


def test_random_states_survive_a_file_that_is_loaded_safely(tmp_path: Path) -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002

    torch.save(random_state(), tmp_path / "random.pt")
    expected = draw()
    assert draw() != expected
    load_random_state(torch.load(tmp_path / "random.pt", weights_only=True))
    assert draw() == expected
