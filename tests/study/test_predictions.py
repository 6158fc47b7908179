"""What uniform runs foretell: the gain of leaving sources out, what it is worth in steps, and in the loss."""

import math

import numpy as np
import pytest

from study.contrasts import Run
from study.figures import predictions_figure
from study.plan import Cell
from study.predictions import gain_without, predictions, slope, speedup
from study.tables import predictions_table, sources_table


def run(arm: str, seed: int, loss: float, steps: int = 300, text: str = "permuted-25", **figures: object) -> Run:
    return Run(Cell(text, arm, 0.01, seed, 32, "s", steps), loss, **figures)  # type: ignore[arg-type]


def test_the_gain_of_leaving_a_source_out_is_that_of_weights_of_0() -> None:
    """Q(w) = mean(w a)² / mean(w² n) of docs/value.md, sample by sample."""
    draws = np.random.default_rng(0)
    sources = draws.choice(3, size=2000, p=[0.5, 0.3, 0.2])
    norms = draws.gamma(2.0, size=2000) * np.array([1.0, 1.5, 0.5])[sources]
    alignments = draws.normal(np.array([1.0, 1.2, 0.1])[sources])

    def quality(weights: np.ndarray) -> float:
        return float((weights * alignments).mean() ** 2 / (weights**2 * norms).mean())

    worth = {
        name: {
            "share": float((sources == number).mean()),
            "norm": norms[sources == number].mean() / norms.mean(),
            "alignment": alignments[sources == number].mean() / alignments.mean(),
        }
        for number, name in enumerate(("web", "wiki", "permuted"))
    }
    expected = quality(1.0 * (sources != 2)) / quality(np.ones(2000))
    assert gain_without(worth, ["permuted"]) == pytest.approx(expected)
    assert gain_without(worth, []) == pytest.approx(1.0)


def test_a_gain_is_worth_steps_where_the_batch_is_small() -> None:
    assert speedup(1.5, 1e6, 1) == pytest.approx(1.5, rel=1e-4)
    assert speedup(1.5, 1.0, 1_000_000) == pytest.approx(1.0, rel=1e-4)
    assert speedup(1.0, 55.0, 32) == 1.0
    assert speedup(0.5, 55.0, 32) < 1.0


def test_the_slope_is_of_runs_of_several_lengths() -> None:
    runs = [run("uniform", seed, 8.0 - 0.5 * math.log(steps), steps) for seed in (0, 1) for steps in (200, 300, 450)]
    assert slope(runs, runs[0].setting) == pytest.approx(-0.5)
    other = run("uniform", 0, 5.0, text="web")
    assert slope([*runs, other], other.setting) == pytest.approx(-0.5)  # of another text
    assert slope([other], other.setting) is None


def test_predictions_are_of_the_uniform_runs_and_beside_what_was_seen() -> None:
    worth = {
        "web": {"share": 0.8, "norm": 1.0, "alignment": 1.2},
        "permuted": {"share": 0.2, "norm": 1.0, "alignment": 0.2},
    }
    figures = {"noise_scale": 64.0, "worth": worth}
    runs = [run("uniform", 0, 5.0, gains={"clip": (1.1, 0.03)}, **figures)]
    runs += [run("uniform", 1, 5.1, gains={"clip": (1.3, 0.03)}, **figures), run("uniform", 0, 4.8, steps=450)]
    runs += [run(arm, seed, 4.9 + 0.1 * seed) for arm in ("clip", "oracle", "paper") for seed in (0, 1)]
    found = {prediction.effect.arm: prediction for prediction in predictions(runs)}
    assert set(found) == {"clip", "oracle"}  # there is no figure for the two stages together
    assert (found["clip"].gain, found["clip"].error) == pytest.approx((1.2, 0.1))
    assert found["oracle"].gain == pytest.approx((0.8 * 1.2) ** 2 / 0.8)
    line = (4.8 - 5.05) / math.log(450 / 300)
    assert found["clip"].change == pytest.approx(line * math.log(speedup(1.2, 64.0, 32)))
    assert found["clip"].change < 0
    asked = [run("uniform-reference", 0, 5.0, gains={"clip": (0.9, 0.01)}, **figures)]
    told = [(one.teller, one.gain) for one in predictions(runs + asked) if one.effect.arm == "clip"]
    assert told == [("uniform", pytest.approx(1.2)), ("uniform-reference", 0.9)]
    assert "| permuted-25 | s | 32 | the text as it is | clip at the median | × 1.20 ± 0.10 | −0." in predictions_table(
        runs
    )
    picture = predictions_figure(runs)
    assert picture.startswith("<svg")
    assert "clip at the median" in picture
    assert "| permuted-25 | s | permuted | 20.0% | 1.00 | 0.20 | 0.20 |" in sources_table(runs)
