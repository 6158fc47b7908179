"""Groups of runs over seeds, and verdicts."""

from pathlib import Path

import pytest

from presence_ds.trainer.report.comparison import comparisons_of, groups_of, judged
from presence_ds.trainer.report.configuration import group_names, is_uniform, weights_in_words
from presence_ds.trainer.report.figures import Curve, RunFigures
from presence_ds.trainer.report.student import coverage, critical


def run(kind: str, seed: int, loss: float, *, lr: float = 0.001, steps: int = 100) -> RunFigures:
    curve = Curve([50, steps], [500, 1000], [0.5, 1.0], [9.0, loss], [9.0, loss], [9.0, loss])
    configuration = {
        **{"run_dir": f"runs/{kind}{seed}", "presence.preset": kind, "presence.signal": "self_influence"},
        **{"optimizer.lr": lr, "training.seed": seed, "data.seed": 0, "wandb.project": f"p{seed}"},
    }
    weights = weights_in_words(configuration)
    return RunFigures(
        run_dir=f"runs/{kind}{seed}",
        label=f"{kind}{seed}",
        seed=seed,
        weights=weights,
        step=steps,
        curves={"loss": curve},
        validation={"": curve, "web": curve},
        configuration=configuration,
    )


def test_groups_differ_in_more_than_seeds() -> None:
    runs = [
        run("calibrated", 0, 3.0),
        run("uniform", 0, 3.1),
        run("calibrated", 1, 3.2),
        run("calibrated", 0, 3, lr=0.1),
    ]
    groups = groups_of(runs)
    assert [group.runs for group in groups] == [[1], [0, 2], [3]]
    assert [group.name for group in groups] == [
        "uniform weights, lr 0.001",
        "calibrated weights, lr 0.001",
        "calibrated weights, lr 0.1",
    ]
    band = groups[1].validation[""]
    assert (band.mean[-1], band.low[-1], band.high[-1]) == (pytest.approx(3.1), 3.0, 3.2)


def test_names_tell_groups_of_like_weights_apart() -> None:
    one, other = (
        {"presence.preset": "calibrated", "presence.weighting.features": kind} for kind in ('["a"]', '["a", "b"]')
    )
    names = group_names([one, other, {"presence.preset": "uniform", "presence.weighting.features": '["a"]'}])
    assert names == ["calibrated weights, features a", "calibrated weights, features a, b", "uniform weights"]
    assert len(set(group_names([{}, {}]))) == 2


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([-0.05, -0.06, -0.055], "better"),
        ([0.05, 0.06, 0.055], "worse"),
        ([0.001, -0.002, 0.0], "equivalent"),
        ([0.05, -0.06, 0.001], "open"),
        ([0.0, 0.0], "equivalent"),
        ([-0.05], "one seed"),
    ],
)
def test_verdicts(differences: list[float], verdict: str) -> None:
    assert judged(differences, 0.01)[3] == verdict


def test_an_interval_is_students() -> None:
    """Of ten differences by hand: mean 0.1, standard deviation 0.1, so that it is 0.1 ± 2.262 · 0.1 / √10."""
    spread = 0.1 * (9 / 10) ** 0.5
    mean, low, high, _ = judged([0.1 - spread, 0.1 + spread] * 5, 0.01)
    assert (mean, low, high) == pytest.approx((0.1, 0.1 - 0.0715, 0.1 + 0.0715), abs=1e-4)


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(1, 12.7062), (2, 4.3027), (3, 3.1824), (9, 2.2622), (30, 2.0423), (101, 1.9837)]
)
def test_students_t_as_tables_have_it(freedom: int, quantile: float) -> None:
    assert critical(freedom) == pytest.approx(quantile, abs=1e-4)
    assert coverage(quantile, freedom) == pytest.approx(0.95, abs=1e-5)


def test_pairs_have_one_seed_and_one_step() -> None:
    """Seed 2 is in one group alone; one run is still at step 50, so that the last step of all of them counts."""
    runs = [
        *(run("uniform", seed, loss) for seed, loss in ((0, 3.0), (1, 3.4))),
        *(run("calibrated", seed, loss) for seed, loss in ((0, 2.9), (1, 3.3), (2, 1.0))),
    ]
    groups = groups_of(runs)
    whole, web = comparisons_of(runs, groups)[:1], comparisons_of(runs, groups)
    assert len(web) == 1  # the one source is all there is
    (compared,) = whole
    assert compared.figure == "validation/loss"
    assert compared.seeds == [0, 1]
    assert compared.differences == pytest.approx([-0.1, -0.1])
    assert compared.verdict == "better"
    assert "calibrated weights against uniform weights: validation loss -0.1000 nats" in compared.words
    runs[3] = run("calibrated", 1, 3.3, steps=70)
    (compared,) = comparisons_of(runs, groups_of(runs))
    assert compared.differences == [0.0, 0.0]
    assert "at step 50, the last" in compared.words


def test_one_seed_has_no_verdict() -> None:
    runs = [run("uniform", 0, 3.0), run("calibrated", 0, 2.0)]
    (compared,) = comparisons_of(runs, groups_of(runs))
    assert compared.verdict == "one seed"
    assert "train with more seeds" in compared.words
    assert compared.low is None


def test_the_baseline_is_the_most_like() -> None:
    """Uniform weights at the same learning rate; without any, the first group."""
    runs = [run(kind, 0, 3.0, lr=lr) for kind in ("uniform", "calibrated") for lr in (0.1, 0.01)]
    groups = groups_of(runs)
    found = {groups[one.group].name: groups[one.baseline].name for one in comparisons_of(runs, groups)}
    assert found["calibrated weights, lr 0.1"] == "uniform weights, lr 0.1"
    assert found["calibrated weights, lr 0.01"] == "uniform weights, lr 0.01"
    runs = [run("clip", 0, 3.0), run("calibrated", 0, 3.0)]
    (compared,) = comparisons_of(runs, groups_of(runs))
    assert (compared.group, compared.baseline) == (1, 0)


def test_weights_in_words(tmp_path: Path) -> None:
    assert is_uniform({"presence.preset": "paper", "presence.signal": "uniform"})
    assert weights_in_words({"presence.preset": "calibrated", "presence.weighting.placebo": True}).endswith("(placebo)")
    paper = {"presence.preset": "paper", "presence.normalizer": "rank", "presence.schedule.tau_direct": 1.0}
    constant = {**paper, "presence.schedule.kind": "constant"}
    assert weights_in_words(constant) == "softmax weights of the rank, τ 1"
    assert weights_in_words({**paper, "presence.schedule.tau_inverse": -1.0}).endswith("τ 1 to -1")
