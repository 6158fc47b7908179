"""`presence gain`: what a run was told while it trained, and what it was not asked, from its records."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from presence_ds import cli
from presence_ds.reweighting import ReweightingConfig, WeightingConfig, Worth
from presence_ds.reweighting.value.gain import COMPARED, Candidate, gains, in_units, quality_sums, speedup
from presence_ds.reweighting.value.noise_scale import NoiseScale
from presence_ds.reweighting.value.unit import Unit
from presence_ds.reweighting.value.worth import gradient_moments
from presence_ds.trainer.gain import gain, records
from presence_ds.trainer.gain.records import FEATURES
from tests.ranks import Ranks
from tests.trainer.conftest import write_recipe
from tests.trainer.gain.records import PER_RANK, SOURCES, STEPS, Step, make_step, write_run
from tests.trainer.pool_runs import train

Figures = dict[str, Any]


def figures(run_dir: Path, *arguments: str) -> Figures:
    output = run_dir / "gain.json"
    cli.main(["gain", str(run_dir), "--json", str(output), *arguments])
    return json.loads(output.read_text())


def live(steps: dict[int, Step], **fields: Any) -> Worth:
    worth = Worth(ReweightingConfig("paper", **fields))
    for step in steps.values():
        counted = step.samples.only_counted()
        if len(counted) > 1:
            worth.observe(counted, step.weights[step.samples.counted].double())
    return worth


def scale_of(steps: dict[int, Step]) -> float:
    """The noise scale with every step counting alike."""
    scale, unit = NoiseScale(decay=1.0), Unit()
    for step in steps.values():
        counted = step.samples.only_counted()
        if len(counted) > 1:
            square, noise = gradient_moments(counted)
            of_step = unit.take(square + noise, len(counted))
            scale.update(square / of_step, noise / of_step, 0.0)
    assert scale.samples is not None
    return scale.samples


@pytest.fixture(scope="module")
def alike() -> dict[int, Step]:
    return {number: make_step(number) for number in range(1, STEPS + 1)}


@pytest.fixture(scope="module")
def unlike() -> dict[int, Step]:
    """Some samples of every third step do not count; fewer than two of them in step 41 do."""
    steps = {number: make_step(number, number % 3 * (number % 5)) for number in range(1, STEPS + 1)}
    return steps | {41: make_step(41, 2 * PER_RANK - 1)}


@pytest.mark.parametrize("alignment_with", ["step", "reference"])
@pytest.mark.parametrize("kind", ["alike", "unlike"])
def test_past_steps_tell_what_they_told_when_they_were_taken(
    kind: str, alignment_with: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    steps: dict[int, Step] = request.getfixturevalue(kind)
    found = figures(write_run(tmp_path / "run", steps, alignment_with))
    expected = live(steps, alignment_with=alignment_with)
    assert found["alignment_with"] == alignment_with
    told = {number: step for number, step in steps.items() if step.samples.counted.sum() > 1}
    samples = sum(int(step.samples.counted.sum()) for step in told.values())
    assert (found["first_step"], found["last_step"]) == (1, STEPS)
    assert (found["steps"], found["samples"]) == (len(told), samples)
    assert found["noise_scale"] == pytest.approx(scale_of(told), rel=1e-9)
    assert list(found["gains"]) == list(expected.gains) == [*COMPARED, "in_use"]
    errors = kind == "alike"  # else blocks begin at other steps
    for name, one in expected.gains.items():
        value = found["gains"][name]
        assert value["gain"] == pytest.approx(one.gain, rel=1e-9)
        assert value["error"] == pytest.approx(one.error, rel=1e-9 if errors else 0.3, abs=1e-12)
        faster = speedup(one.gain, scale_of(told), samples / len(told))
        assert value["speedup"] == pytest.approx(faster, rel=1e-9)
    assert len({round(value["gain"], 6) for value in found["gains"].values()}) == len(found["gains"])
    for number, source in expected.sources.items():
        value = found["sources"][SOURCES[number]]
        for part in ("share", "norm", "alignment", "ratio"):
            assert value[part] == pytest.approx(getattr(source, part), rel=1e-9)
        assert value["error"] == pytest.approx(source.error, rel=1e-9 if errors else 0.3)
    weights = torch.cat([(step.weights / step.weights[step.samples.counted].mean()) for step in told.values()])
    of = torch.cat([step.samples.sources for step in told.values()])
    counted = torch.cat([step.samples.counted for step in told.values()])
    for number, name in enumerate(SOURCES):
        mean = weights[counted & (of == number)].double().mean().item()
        assert found["sources"][name]["mean_weight"] == pytest.approx(mean, rel=1e-5)


def test_how_records_are_cut_does_not_matter(
    unlike: dict[int, Step], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = write_run(tmp_path / "run", unlike)
    expected = figures(run_dir)
    monkeypatch.setattr("presence_ds.reweighting.value.past.CHUNK", 100)
    for rows, most in ((500, 10**6), (500, 100), (1, 1)):
        monkeypatch.setattr(gain, "cut", partial(records.cut, rows=rows, most=most))
        found = figures(run_dir)
        assert found["samples"] == expected["samples"]
        for part in ("gains", "sources"):
            for name, values in expected[part].items():
                numbers = {key: value for key, value in values.items() if key != "verdict"}
                assert {key: found[part][name][key] for key in numbers} == pytest.approx(numbers, rel=1e-9, abs=1e-12)


def test_some_of_the_steps(alike: dict[int, Step], tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run", alike)
    part = {number: alike[number] for number in range(51, 121)}
    found, expected = (
        figures(run_dir, "--first_step", "51", "--last_step", "120"),
        figures(write_run(tmp_path / "part", part)),
    )
    del found["run_dir"], expected["run_dir"]
    assert found == expected
    assert (found["first_step"], found["steps"]) == (51, 70)
    assert found["gains"]["clip"]["gain"] == pytest.approx(live(part).gains["clip"].gain, rel=1e-9)


def test_weights_of_the_command_line(alike: dict[int, Step], tmp_path: Path) -> None:
    weights = """{
        same: {preset: clip},
        tight: {weighting: {kind: clip, quantile: 0.3}},
        by_source: {preset: calibrated, weighting: {features: [source]}},
        mild: {normalizer: rank, schedule: {kind: constant, tau_direct: 0.1}},
        trusted: {signal: alignment, schedule: {kind: constant}},
    }"""
    found = figures(write_run(tmp_path / "run", alike), "--weights", weights)["gains"]
    assert list(found) == [*COMPARED, "same", "tight", "by_source", "mild", "trusted", "in_use"]
    assert found["same"] == found["clip"]
    candidates = [
        Candidate(config)
        for config in (ReweightingConfig("uniform"), ReweightingConfig(weighting=WeightingConfig("clip", quantile=0.3)))
    ]
    sums, unit = torch.zeros(2, 2, dtype=torch.float64), Unit()
    for step in alike.values():
        samples, usefulness = step.samples, step.samples.usefulness(with_reference=False)
        assert samples.scores is not None
        of_step = torch.tensor(unit.take(samples.scores.double().mean().item(), len(samples)), dtype=torch.float64)
        noise, signal = in_units(samples.scores, usefulness, of_step)
        every = [candidate.weights(samples, noise, signal) for candidate in candidates]
        sums += quality_sums(torch.stack(every), noise, signal)
    assert found["tight"]["gain"] == pytest.approx(gains(sums)[1].item(), rel=1e-9)
    assert found["by_source"]["gain"] > 1.01  # two sources are worth more than the third
    assert found["trusted"]["gain"] not in (1.0, found["paper_direct"]["gain"])
    assert found["mild"]["gain"] != pytest.approx(1.0, abs=1e-3)


def test_features_that_are_not_recorded(
    alike: dict[int, Step], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Weights that are always compared go without them; those that ask for them are refused."""
    run_dir = write_run(tmp_path / "run", alike, features_from=100)
    asked = "{without: {weighting: {features: [norm, loss]}}}"
    told = figures(run_dir, "--weights", asked)
    assert told["calibrated_without"] == ["vocabulary"]
    assert "calibrated weights go without vocabulary" in capsys.readouterr().out
    found = told["gains"]
    assert found["calibrated"]["gain"] == pytest.approx(found["without"]["gain"], rel=1e-9)
    assert found["without"] == figures(write_run(tmp_path / "all", alike), "--weights", asked)["gains"]["without"]
    capsys.readouterr()
    for feature, column in FEATURES.items():
        with pytest.raises(SystemExit):
            cli.main(["gain", str(run_dir), "--weights", f"{{mine: {{weighting: {{features: [{feature}]}}}}}}"])
        told = " ".join(capsys.readouterr().err.split())
        assert f"weights.mine.weighting.features has {feature}, and not all of these steps have {column}" in told
    late = figures(run_dir, "--first_step", "120")
    assert late["calibrated_without"] == []
    assert late["gains"]["calibrated"] == figures(tmp_path / "all", "--first_step", "120")["gains"]["calibrated"]


def test_a_table_for_people(
    alike: dict[int, Step], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    run_dir = write_run(tmp_path / "run", alike)
    cli.main(["gain", str(run_dir), "--weights", "{'[/mine]': {signal: uniform, preset: uniform}}"])
    text = capsys.readouterr().out
    assert "steps 1 to 200, 4,800 samples that count in 200 steps" in text
    for words in ("the weights in use", "calibrated weights", "[/mine]", "over steps 1 to 200", "keep"):
        assert words in text
    cli.main(["gain", str(run_dir), "--json", "-"])
    found = json.loads(capsys.readouterr().out)
    for name, source in found["sources"].items():
        (line,) = [line for line in text.splitlines() if line.startswith(f"│ {name} ")]
        assert f"{source['ratio']:.2f} ± {source['error']:.2f}" in line
        assert f"{source['mean_weight']:.3f}" in line


def test_too_few_steps_tell_nothing_of_weights(
    alike: dict[int, Step], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = write_run(tmp_path / "run", {number: alike[number] for number in (1, 2, 3)})
    found = figures(run_dir)
    assert found["gains"] == {}
    assert found["sources"]["web"]["error"] is None
    assert "cannot be told" in capsys.readouterr().out
    lone = write_run(tmp_path / "lone", {1: make_step(1, 2 * PER_RANK - 1)})
    assert figures(lone) | {"run_dir": ""} == {
        "run_dir": "",
        "first_step": 1,
        "last_step": 1,
        "steps": 0,
        "samples": 0,
        "alignment_with": "step",
        "calibrated_without": [],
        "noise_scale": None,
        "gains": {},
        "sources": {},
    }


def test_a_run_of_the_trainer(two_ranks: Ranks, corpus_file: Path, tmp_path: Path) -> None:
    """Its summary and its records tell the same: float32 weights and blocks of other lengths apart."""
    recipe, run_dir = write_recipe(tmp_path / "tiny.yaml", corpus_file), tmp_path / "run"
    arguments = [str(recipe), f"--run_dir={run_dir}", "--presence.alignment=true", "--training.steps=60"]
    (result, _) = two_ranks.run(train, arguments)
    assert result["status"] == 0, result["message"]
    expected, found = json.loads((run_dir / "summary.json").read_text())["worth"], figures(run_dir)
    assert found["steps"] == 60
    assert sorted(found["sources"]) == sorted(expected["sources"]) == ["lines", "shuffled"]
    for name, source in expected["sources"].items():
        for part in ("share", "norm", "alignment", "ratio"):
            assert found["sources"][name][part] == pytest.approx(source[part], rel=1e-6)
    for name in found["gains"].keys() & expected["gains"].keys():
        assert found["gains"][name]["gain"] == pytest.approx(expected["gains"][name]["gain"], rel=1e-5)
