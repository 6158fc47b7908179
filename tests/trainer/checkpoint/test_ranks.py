"""A checkpoint of another number of ranks."""

from pathlib import Path

import pytest

from tests.conftest import Pools
from tests.trainer.checkpoint import runs
from tests.trainer.checkpoint.conftest import OPTIONS, Train, interrupted
from tests.trainer.conftest import ROOT, read_metrics, read_scores

STILL = [f"--model.config.{name}=0.0" for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop")]  # dropout is drawn anew
SAME_BATCH = ["--training.gradient_accumulation_steps=null", "--training.global_batch_size", "16"]


def samples(run_dir: Path) -> list[tuple[object, ...]]:
    """What was taken in each step."""
    return sorted((row["step"], row["document_id"], row["source"]) for row in read_scores(run_dir))


@pytest.mark.parametrize("stage", [pytest.param(stage, marks=pytest.mark.long) for stage in (1, 2)] + [3])
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_a_run_goes_on_where_it_was(
    pools: Pools, train: Train, tiny_recipe: Path, tmp_path: Path, stage: int, before: int, after: int
) -> None:
    """Every value is loaded bit for bit, no sample is left out or repeated, and the losses agree to rounding."""
    options = [*STILL, *SAME_BATCH]
    whole = tmp_path / "whole"
    assert train(whole, *options, ranks=before, stage=stage) is None
    run_dir = interrupted(whole, tmp_path / "run", 3)
    zero = ["--deepspeed", str(ROOT / "ds_configs" / f"zero{stage}.json")]
    arguments = [str(tiny_recipe), *OPTIONS, *zero, *options, "--run_dir"]
    copies = [interrupted(whole, tmp_path / name, 3) for name in ("same", "other")]
    again = [tmp_path / f"{name} again" / "step" for name in ("same", "other")]
    expected = pools.get(before).run(runs.restored, again[0], *arguments, str(copies[0]))[0]
    for found in pools.get(after).run(runs.restored, again[1], *arguments, str(copies[1])):
        assert found == expected
    assert expected["step"] == 3
    tensors = [runs.whole_tensors(folder, folder.parent) for folder in again]
    assert len(tensors[0]) >= 3 * 28
    assert tensors[0] == tensors[1]
    assert train(run_dir, *options, ranks=after, stage=stage) is None
    assert not list((run_dir / "checkpoints").glob("unfinished_*"))
    for line, theirs in zip(read_metrics(run_dir), read_metrics(whole), strict=True):
        assert line["step"] == theirs["step"]
        assert line["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
    assert samples(run_dir) == samples(whole)


def test_an_optimizer_that_cannot_be_converted_is_refused(train: Train, tmp_path: Path) -> None:
    options = ["--optimizer.kind", "sgd", *SAME_BATCH]
    assert train(tmp_path / "whole", *options, ranks=1) is None
    error = train(interrupted(tmp_path / "whole", tmp_path / "run", 2), *options, ranks=2)
    assert error is not None
    assert "was written by 1 ranks, and with optimizer SGD it can only be loaded on as many" in error
