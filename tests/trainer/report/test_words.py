"""Sentences of the summary."""

import pytest

from presence_ds.trainer.report.figures import Group, RunFigures, WeightsWorth, Worth
from presence_ds.trainer.report.words import summary_of


@pytest.mark.parametrize(
    ("gain", "error", "said", "level"),
    [
        (1.0, 0.0, "as they were uniform", "told"),
        (1.01, 0.02, "which may be nothing", "told"),
        (1.1, 0.02, "worth × 1.10 (95 % interval 1.06 to 1.14)", "good"),
    ],
)
def test_what_weights_are_worth(gain: float, error: float, said: str, level: str) -> None:
    """Weights that are calibrated are uniform until there is something to learn from."""
    worth = Worth(1, 20, "records", None, [WeightsWorth("in_use", "the weights in use", gain, error, None)])
    run = RunFigures("run", "run", weights="calibrated weights", step=20, worth=worth)
    (sentence,) = (one for one in summary_of([run], [Group("run", [0])], []) if one.about == "worth")
    assert said in sentence.text
    assert sentence.level == level
    assert ("may be nothing" in sentence.text) == ("may be nothing" in said)
