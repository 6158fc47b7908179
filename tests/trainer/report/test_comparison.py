"""Groups of runs over seeds, and verdicts."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from presence_ds.trainer.report.comparison import comparisons_of, groups_of, judged
from presence_ds.trainer.report.configuration import group_names, is_uniform, weights_in_words
from presence_ds.trainer.report.figures import Curve, RunFigures, WeightsWorth, Worth
from presence_ds.trainer.report.student import coverage, critical
from presence_ds.trainer.report.words import summary_of


def run(kind: str, seed: int, loss: float, *, lr: float = 0.001, steps: int = 100, **fields: Any) -> RunFigures:
    curve = Curve([50, steps], [500, 1000], [0.5, 1.0], [9.0, loss], [9.0, loss], [9.0, loss])
    configuration = {
        **{"run_dir": f"runs/{kind}{seed}", "presence.preset": kind, "presence.signal": "self_influence"},
        **{"optimizer.lr": lr, "training.seed": seed, "data.seed": 0, "wandb.project": f"p{seed}"},
        **fields,
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


def said(runs: Sequence[RunFigures]) -> str:
    groups = groups_of(runs)
    return " ".join(sentence.text for sentence in summary_of(runs, groups, comparisons_of(runs, groups)))


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
    assert "calibrated weights against uniform weights: validation loss −0.1000 nats" in compared.words
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


def test_seeds_and_paths_make_no_run_unlike() -> None:
    """The uniform weights of the same learning rate, though those of another have the run's own seed."""
    runs = [
        run("uniform", 0, 3.5, lr=0.1),
        *(run("uniform", seed, 3.0 + 0.1 * seed) for seed in (1, 2)),
        *(run("calibrated", seed, 2.9 + 0.1 * seed) for seed in (0, 1, 2)),
    ]
    groups = groups_of(runs)
    found = {groups[one.group].name: one for one in comparisons_of(runs, groups)}
    compared = found["calibrated weights, lr 0.001"]
    assert groups[compared.baseline].name == "uniform weights, lr 0.001"
    assert compared.seeds == [1, 2]


def test_of_like_baselines_the_one_with_most_seeds() -> None:
    """Though another's way to record is the run's own."""
    runs = [
        run("uniform", 0, 3.0, **{"presence.alignment": True, "logging.score_records": True}),
        *(run("uniform", seed, 3.0, **{"logging.score_records": False}) for seed in (0, 1)),
        *(run("calibrated", seed, 2.9, **{"logging.score_records": True}) for seed in (0, 1)),
    ]
    groups = groups_of(runs)
    (compared,) = [one for one in comparisons_of(runs, groups) if one.group == 2]
    assert (compared.baseline, compared.seeds) == (1, [0, 1])


def test_a_run_without_validation_takes_none_from_the_others() -> None:
    runs = [run(kind, seed, loss) for kind, loss in (("uniform", 3.0), ("calibrated", 2.9)) for seed in (0, 1, 2)]
    runs[5] = replace(runs[5], validation={}, curves={})
    groups = groups_of(runs)
    (compared,) = comparisons_of(runs, groups)
    assert compared.seeds == [0, 1]
    assert groups[1].curves.keys() == {"loss"}
    assert "2.9000 (2.9000 to 2.9000 over 2 seeds)" in said(runs)


def test_a_run_that_diverged_is_counted() -> None:
    """Its losses are not finite after step 50, and so are none."""
    runs = [run(kind, seed, loss) for kind, loss in (("uniform", 3.0), ("calibrated", 2.9)) for seed in (0, 1)]
    curve = runs[3].validation[""]
    short = Curve(
        *(column[:1] for column in (curve.step, curve.tokens, curve.hours, curve.mean, curve.low, curve.high))
    )
    runs[3] = replace(runs[3], validation={"": short})
    (compared,) = comparisons_of(runs, groups_of(runs))
    assert "at step 50, the last at which all were evaluated, as 1 of 4 runs has no finite loss later" in compared.words


def test_runs_of_one_seed_are_one_pair() -> None:
    """Their mean, and no run is left out in silence."""
    runs = [run("uniform", 0, 3.0), run("calibrated", 0, 2.9), run("calibrated", 0, 2.7)]
    (compared,) = comparisons_of(runs, groups_of(runs))
    assert compared.differences == pytest.approx([-0.2])
    assert compared.verdict == "one seed"
    assert "over 2 runs of 1 seed" in said(runs)


def test_folders_of_prepared_data_make_no_groups() -> None:
    """As every data seed needs its own."""
    runs = [run("uniform", seed, 3.0, **{"data.seed": seed, "data.prepared": f"prep{seed}"}) for seed in (0, 1)]
    assert [group.runs for group in groups_of(runs)] == [[0, 1]]


def test_a_groups_worth_is_the_mean_of_its_runs() -> None:
    def worth(gain: float) -> Worth:
        return Worth(1, 100, "records", 50.0, [WeightsWorth("in_use", "the weights in use", gain, 0.04, None)])

    runs = [replace(run("calibrated", seed, 3.0), worth=worth(gain)) for seed, gain in ((0, 1.1), (1, 1.3))]
    error = 0.04 / 2**0.5
    expected = f"× 1.20 (95 % interval {1.2 - 1.96 * error:.2f} to {1.2 + 1.96 * error:.2f})"
    assert f"Mean of 2 runs: the weights in use are expected to be worth {expected}" in said(runs)
    assert "Mean" not in said(runs[:1])


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"signal": "self_influence"}, "calibrated weights"),
        ({"alignment": False}, "gradients clipped"),
        ({"estimator": "exact", "layers": '["model.*"]'}, "gradients clipped"),
        ({"signal": "loss"}, "softmax weights"),
        ({"normalizer": "rank"}, "softmax weights of the rank"),
        ({"schedule.tau_direct": 0.5}, "softmax weights"),
        ({"of_another_version": 1}, "weights"),
        ({"layers": "[broken"}, "weights"),
    ],
)
def test_weights_without_a_preset(section: dict[str, Any], words: str) -> None:
    """What the trainer makes of them."""
    told = weights_in_words({f"presence.{name}": value for name, value in section.items()})
    assert told == words if words == "weights" else told.startswith(words)


def test_weights_in_words(tmp_path: Path) -> None:
    assert is_uniform({"presence.preset": "paper", "presence.signal": "uniform"})
    assert weights_in_words({"presence.preset": "calibrated", "presence.weighting.placebo": True}).endswith("(placebo)")
    paper = {"presence.preset": "paper", "presence.normalizer": "rank", "presence.schedule.tau_direct": 1.0}
    constant = {**paper, "presence.schedule.kind": "constant"}
    assert weights_in_words(constant) == "softmax weights of the rank, τ 1"
    assert weights_in_words({**paper, "presence.schedule.tau_inverse": -1.0}).endswith("τ 1 to -1")
