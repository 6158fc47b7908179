"""Each rank has chosen its device before anything asks for one, or the first would be asked for all of them."""

from collections.abc import Callable
from functools import wraps
from inspect import isfunction
from pathlib import Path
from typing import Any

import pytest
from deepspeed.accelerator import get_accelerator

from tests.ranks import Ranks
from tests.trainer import pool_runs

OF_NO_DEVICE = {"device_name", "device_count", "is_available", "communication_backend_name"}


def test_the_device_is_chosen_first(two_ranks: Ranks, tiny_recipe: Path, tmp_path: Path) -> None:
    options = ["--training.steps", "4", "--evaluation.every_steps", "null", "--logging.peak_tflops", "1.0"]
    asked = two_ranks.run(questions, [str(tiny_recipe), "--run_dir", str(tmp_path / "run"), *options])
    for rank, of_rank in enumerate(asked):
        chosen = of_rank.index(("set_device", (rank,)))
        assert {name for name, _ in of_rank[:chosen]} <= OF_NO_DEVICE
        later = {name for name, _ in of_rank[chosen:]}
        assert {"current_device_name", "get_rng_state", "synchronize"} <= later  # it is what would be asked
        assert {arguments for name, arguments in of_rank if name == "set_device"} == {(rank,)}


def questions(arguments: list[str]) -> list[tuple[str, tuple[Any, ...]]]:
    """What a run has asked of DeepSpeed's accelerator on this rank, in order."""
    found: list[tuple[str, tuple[Any, ...]]] = []
    accelerator = get_accelerator()

    def noting(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def noted(*args: Any, **kwargs: Any) -> Any:
            found.append((name, args))
            return method(*args, **kwargs)

        return noted

    with pytest.MonkeyPatch.context() as patch:
        for name in dir(type(accelerator)):
            if not name.startswith("_") and isfunction(getattr(type(accelerator), name)):  # no property
                patch.setattr(accelerator, name, noting(name, getattr(accelerator, name)), raising=False)
        result = pool_runs.train(arguments)
    assert result["status"] == 0, result["message"]
    return found
