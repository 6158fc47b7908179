"""What ranks ask each other in the steps of a run travels with the scores: a run has the collectives of the engine."""

from pathlib import Path

import pytest

from benchmarks.communication import CountCollectives
from presence_ds.trainer.callbacks.callback import Callback
from presence_ds.trainer.checkpoint.saving import Saver
from presence_ds.trainer.trainer import Trainer
from tests.ranks import Ranks
from tests.trainer import pool_runs

OPTIONS = ["--training.steps", "8", "--checkpoint.every_steps", "4", "--checkpoint.asynchronous", "true"]
OPTIONS += ["--logging.every_steps", "100", "--evaluation.every_steps", "null", "--data.document_mask", "true"]
STEPS = (6, 7)  # neither logged nor saved, while the checkpoint of step 4 is being written


def test_a_step_has_no_collective_but_those_of_the_engine(
    two_ranks: Ranks, streaming_recipe: Path, tmp_path: Path
) -> None:
    """With streamed text, documents kept apart, and a checkpoint that is being written."""
    for found in two_ranks.run(count, [str(streaming_recipe), "--run_dir", str(tmp_path / "run"), *OPTIONS]):
        bare, *of_steps = found
        assert bare["all-gather"] >= 2  # of scores and parameters
        assert of_steps == [bare, bare]


def count(arguments: list[str]) -> list[dict[str, int]]:
    """Collectives by kind: of a step of the engine alone, then of `STEPS`."""
    counters: dict[int, CountCollectives] = {}

    class Count(Callback):
        def on_step_end(self, trainer: Trainer) -> None:
            if trainer.step in STEPS:
                counters[trainer.step].__exit__(None, None, None)
            if trainer.step + 1 in STEPS:
                counters[trainer.step + 1] = CountCollectives()
                counters[trainer.step + 1].__enter__()

        def on_train_end(self, trainer: Trainer) -> None:
            engine = trainer.engine
            with CountCollectives() as counters[0]:
                for _ in range(engine.gradient_accumulation_steps()):
                    engine.backward(engine(**trainer.model_inputs(next(trainer.batches))))
                    engine.step()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Saver, "busy", property(lambda self: True))
        result = pool_runs.train(arguments, first={"count": Count()})
    assert result["status"] == 0, result["message"]
    return [{kind: of.calls for kind, of in counters[step].traffic.items()} for step in (0, *STEPS)]
