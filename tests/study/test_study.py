"""The study's driver: its cells and arms, and a study of a minute that is run, stopped and gone on with."""

import json
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from presence_ds.commands import train
from presence_ds.commands.recipe_arguments import check_recipe, read_recipe
from presence_ds.data import open_corpus
from presence_ds.errors import AnomalyError, ConfigError, DataError, PresenceError
from presence_ds.trainer.building.optimizer import MAKE
from presence_ds.trainer.building.optimizer_config import KINDS
from study.__main__ import collect, read_shard, run, tables
from study.arms import ARMS
from study.corpora import Corpora
from study.optimizers import OPTIMIZERS, register
from study.plan import PLANS, Cell, Plan, read_plan
from study.recipes import recipe
from study.results import read_rows, read_tables, write_tables
from study.rows import Row, make_row
from study.runs import Runs
from study.texts import DENSITY, SOURCES, TEXTS
from tests.study.texts import write_texts

CORE = min(os.sched_getaffinity(0))
CELL = Cell("mixed-25", "uniform", 0.003, 0, 8, "xs", 12)


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_texts(tmp_path_factory.mktemp("texts"))


def checked(plan: Plan, cell: Cell, folder: Path) -> None:
    file = folder / "recipe.yaml"
    fields = recipe(plan, cell, folder)
    sources = [{"name": name, "path": str(folder)} for name in ("web", "wiki")]
    objective = {} if TEXTS[cell.text].is_causal else {"objective": {"kind": "span_corruption"}}
    fields["data"] = {"sources": sources} | objective  # no corpus is prepared
    file.write_text(yaml.safe_dump(fields))
    parser = train.make_parser()
    check_recipe(*read_recipe(parser, parser.parse_args([str(file)])))


@pytest.fixture
def optimizers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the study, for the time of a test."""
    for kinds in (KINDS, MAKE):
        for name in OPTIMIZERS:
            monkeypatch.setitem(kinds, name, None)  # which takes them out again
    register()


@pytest.mark.usefixtures("optimizers")
@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_is_a_recipe(arm: str, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("text")
    checked(read_plan("smoke"), replace(CELL, arm=arm), tmp_path)


@pytest.mark.parametrize("name", ["smoke", "small", "gpu"])
def test_every_plan_is_of_recipes(name: str, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("text")
    plan = read_plan(name)
    for shape in plan.shapes:
        for text in ("pair", "languages"):
            checked(plan, replace(CELL, text=text, shape=shape, steps=plan.warmup_steps), tmp_path)


def test_arms_differ_and_are_told_apart(texts: Path, tmp_path: Path) -> None:
    runs = Runs(read_plan("smoke"), tmp_path, texts)
    assert len({runs.key(replace(CELL, arm=arm)) for arm in ARMS}) == len(ARMS)
    assert len({arm.title for arm in ARMS.values()}) == len(ARMS)


@pytest.mark.parametrize("name", TEXTS)
def test_shares_of_noise_are_of_all_samples(name: str) -> None:
    text = TEXTS[name]
    section = text.data_section(Path())
    copies = {noise["kind"]: noise["share"] for noise in section["noise"] or []}
    sizes = {source["name"]: source["max_megabytes"] for source in section["sources"]}
    samples = {name: size * DENSITY.get(name, 1.0) for name, size in sizes.items()}
    total = sum(samples.values()) / (1.0 - sum(copies.values()))
    shares = copies | {name: samples[name] / total for name in sizes if name not in text.clean}
    if text.weights is not None:
        assert sum(text.weights.values()) == pytest.approx(1.0)
        assert text.weights.keys() == sizes.keys()
        shares = {name: text.weights[name] for name in sizes if name not in text.clean}
    assert shares == pytest.approx(text.noise)
    assert text.data_section(Path(), with_noise=False)["noise"] is None


def test_cells_of_several_contrasts_are_run_once_and_seed_by_seed() -> None:
    plan = read_plan("smoke")
    doubled = replace(plan, contrasts=plan.contrasts | {"again": replace(plan.contrasts["main"], seeds=[1, 2])})
    cells = doubled.cells()
    assert [cell.seed for cell in cells] == [0, 0, 1, 1, 2, 2]
    assert len(set(cells)) == 6
    assert doubled.cells("again") == [cell for cell in cells if cell.seed]


def test_a_change_touches_just_the_runs_that_it_changes(texts: Path, tmp_path: Path) -> None:
    plan = read_plan("smoke")
    before = Runs(plan, tmp_path / "here", texts)
    assert Runs(plan, tmp_path / "there", texts).key(CELL) == before.key(CELL)
    assert Runs(replace(plan, protocol=2), tmp_path, texts).key(CELL) != before.key(CELL)
    assert before.key(replace(CELL, rate=0.001)) != before.key(CELL)
    copy = tmp_path / "texts"
    for source in texts.rglob("*.*"):
        target = copy / source.relative_to(texts)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    assert Runs(plan, tmp_path, copy).key(CELL) == before.key(CELL)
    (copy / SOURCES["wiki"]["path"].replace("*", "one")).write_text('{"text": "other"}\n')
    changed = Runs(plan, tmp_path / "changed", copy)
    assert changed.key(replace(CELL, text="web")) == before.key(replace(CELL, text="web"))
    assert changed.key(CELL) != before.key(CELL)


@pytest.mark.parametrize("field", ["texts", "arms", "shapes"])
def test_what_there_is_not_is_named(field: str, tmp_path: Path) -> None:
    values = yaml.safe_load((PLANS / "smoke.yaml").read_text())
    values["contrasts"]["main"][field] = ["nothing"]
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match=rf"contrasts\.main\.{field} has 'nothing': it must be one of"):
        read_plan(str(tmp_path / "plan.yaml"))


def test_no_noise_is_left_out_of_clean_text(tmp_path: Path) -> None:
    """It would be the uniform run once more."""
    values = yaml.safe_load((PLANS / "smoke.yaml").read_text())
    values["contrasts"]["main"] |= {"texts": ["mixed-25", "pair"], "arms": ["uniform", "oracle"]}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match=r"contrasts\.main has arm oracle and text pair, which has no noise"):
        read_plan(str(tmp_path / "plan.yaml"))


@pytest.mark.parametrize("name", ["smoke", "small", "gpu"])
def test_cells_of_a_plan_are_told_apart(name: str, texts: Path, tmp_path: Path) -> None:
    plan = read_plan(name)
    runs = Runs(plan, tmp_path, texts)
    cells = plan.cells()
    assert len({runs.key(cell) for cell in cells}) == len(cells)


def test_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml is no plan: give .*smoke"):
        read_plan("none")
    with pytest.raises(ConfigError, match="shard is 5/4: it must be i/n"):
        read_shard("5/4")
    for workers in (0, -1):
        with pytest.raises(ConfigError, match=f"workers is {workers}: it must be at least 1"):
            run("smoke", tmp_path, tmp_path, workers=workers)
    for command in (lambda: run("smoke", tmp_path, tmp_path, results=tmp_path), lambda: tables(tmp_path)):
        with pytest.raises(ConfigError, match=r"rows\.csv is not there"):
            command()
    with pytest.raises(ConfigError, match="has no rows: give the folder"):
        collect(tmp_path / "none", tmp_path / "tables")
    assert not (tmp_path / "tables").exists()
    with pytest.raises(ConfigError, match="contrast is none: plan smoke has main"):
        run("smoke", tmp_path, tmp_path, contrast="none")
    with pytest.raises(ConfigError, match=r"c4-en/\*\.jsonl: there is no such file, and text mixed-25 is made of it"):
        run("smoke", tmp_path, tmp_path)


def test_a_run_that_diverged_is_a_row_and_one_that_failed_is_not(tmp_path: Path) -> None:
    plan = read_plan("smoke")
    row = make_row("key", plan, CELL, tmp_path / "run", AnomalyError.status)
    assert (row.state, row.loss, row.cell) == ("diverged", None, asdict(CELL))
    with pytest.raises(PresenceError, match=r"failed with status 1: .*run\.log says why"):
        make_row("key", plan, CELL, tmp_path / "run", 1)


@pytest.mark.long
def test_a_source_with_too_little_text_is_refused(
    texts: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Shares would be others than the tables say."""
    corpora = Corpora(replace(read_plan("smoke"), text_scale=1.0), tmp_path, texts)
    with pytest.raises(DataError, match="text web cannot be prepared"):
        corpora.prepare(replace(CELL, text="web"), CORE)
    assert "min_megabytes" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


VERSIONS = {"presence-ds": "1", "torch": "2", "deepspeed": "3", "transformers": "4"}


def row(key: str, seed: int = 0, **fields: Any) -> Row:
    return replace(Row(key, 1, asdict(replace(CELL, seed=seed)), VERSIONS, "diverged"), **fields)


def test_rows_of_two_protocols_or_versions_are_not_mixed(tmp_path: Path) -> None:
    write_tables([row("a")], tmp_path)
    before = (tmp_path / "rows.csv").read_bytes()
    for changed, named in (
        ({"protocol": 2}, "protocol 2"),
        ({"versions": VERSIONS | {"torch": "3"}}, "version/torch 3"),
    ):
        other = row("b", 1, **changed)
        for rows in ([other], [row("a"), other]):
            with pytest.raises(ConfigError, match=f"run [ab] is of {named}|of {named.split()[1]}: they do not compare"):
                write_tables(rows, tmp_path)
    assert (tmp_path / "rows.csv").read_bytes() == before


def test_tables_keep_what_rows_say_and_what_was_there(tmp_path: Path) -> None:
    some = {"loss": 5.25, "losses": {"web": 5.0}, "curve": {4: 6.0, 8: 5.25}, "gains": {"clip": (1.05, 0.02)}}
    write_tables([row("b", 0, state="finished", **some)], tmp_path)
    write_tables([row("a", 1)], tmp_path)
    lines, curves = read_tables(tmp_path)
    assert lines[0] | {"loss": "5.25", "loss/web": "5", "gain/clip": "1.05", "gain_error/clip": "0.02"} == lines[0]
    assert lines[1]["state"] == "diverged"
    assert lines[1]["loss"] == lines[1]["gain/clip"] == ""
    assert [(line["key"], line["step"], line["loss"]) for line in curves] == [("b", "4", "6"), ("b", "8", "5.25")]
    write_tables([row("b", 0, loss=5.0)], tmp_path)  # run again
    again, curves = read_tables(tmp_path)
    assert [(line["key"], line["loss"]) for line in again] == [("b", "5"), ("a", "")]
    assert curves == []


@pytest.mark.long
def test_noise_changes_neither_the_tokens_nor_what_is_held_out(texts: Path, tmp_path: Path) -> None:
    """Or losses of arms that read noise and of those that do not would not compare."""
    corpora = Corpora(read_plan("smoke"), tmp_path, texts)
    noisy, clean = (corpora.path(replace(CELL, arm=arm)) for arm in ("uniform", "oracle"))
    corpora.prepare(CELL, CORE)  # which makes the clean one before it
    tokenizers = [json.loads((folder / "tokenizer" / "tokenizer.json").read_text()) for folder in (noisy, clean)]
    assert tokenizers[0] == tokenizers[1]
    reports = [json.loads((folder / "corpus.json").read_text())["report"] for folder in (noisy, clean)]
    for source in TEXTS[CELL.text].clean:
        assert reports[0]["validation"][source] == reports[1]["validation"][source]
    assert set(reports[0]["train"]) - set(reports[1]["train"]) == set(TEXTS[CELL.text].noise)


@pytest.mark.long
def test_sequential_trains_on_a_part_of_the_text(texts: Path, tmp_path: Path) -> None:
    corpora = Corpora(read_plan("smoke"), tmp_path, texts)
    cells = [replace(CELL, arm=arm) for arm in ("uniform", "sequential", "sequential-reverse")]
    assert len({corpora.path(cell) for cell in cells}) == 3
    corpora.prepare(cells[1], CORE)
    samples = []
    for cell in cells[:2]:
        found = open_corpus(corpora.path(cell)).train
        samples.append([tuple(found[place]["input_ids"].tolist()) for place in range(len(found))])
    assert set(samples[1]) < set(samples[0])
    assert len(samples[1]) == pytest.approx(0.75 * len(samples[0]), abs=1)


@pytest.mark.long
def test_a_study_runs_stops_and_goes_on(texts: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    run("smoke", work, texts, shard="1/2")  # both seeds of one arm
    rows = read_rows(work / "rows")
    assert [(row.cell["arm"], row.state) for row in rows] == [("uniform", "finished")] * 2
    assert {row.cell["seed"] for row in rows} == {0, 1}
    first = min(rows, key=lambda row: row.cell["seed"])
    assert list(first.curve) == [4, 8, 12]
    assert first.loss == first.curve[12]
    assert set(first.losses) >= {"web", "wiki"}
    assert set(first.gains) >= {"clip", "paper_inverse"} or first.noise_scale is None
    assert set(first.weights) == {*TEXTS["mixed-25"].clean, *TEXTS["mixed-25"].noise}
    assert set(first.weights.values()) == {1.0}
    assert first.seconds is not None
    kept = work / "rows" / f"{first.key}.json"
    before = kept.read_bytes()
    (other,) = set(work.glob("rows/*.json")) - {kept}
    other.unlink()  # as if it had been killed
    shutil.rmtree(work / "runs" / other.stem)
    run("smoke", work, texts, shard="1/2")
    assert kept.read_bytes() == before
    again = {row.key: row for row in read_rows(work / "rows")}
    assert {key: row.loss for key, row in again.items()} == {row.key: row.loss for row in rows}  # to the bit
    collect(work, tmp_path / "tables")
    runs = Runs(
        read_plan("smoke"), tmp_path / "elsewhere", texts, {line["key"] for line in read_tables(tmp_path / "tables")[0]}
    )
    assert [cell.arm for cell in runs.missing(read_plan("smoke").cells())] == ["calibrated"] * 2
    lines, curves = read_tables(tmp_path / "tables")
    assert len(lines) == 2
    assert len(curves) == 6
