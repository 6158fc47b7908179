"""Help that fits a screen, and the fields of each section on request."""

from dataclasses import fields, is_dataclass
from typing import get_type_hints

import pytest

from presence_ds import cli
from presence_ds.trainer.recipe.recipe import Recipe

TAKE_A_RECIPE = ["train", "prepare", "estimate", "slurm", "score"]
SECTIONS = {name: kind for name, kind in get_type_hints(Recipe).items() if is_dataclass(kind)}


@pytest.fixture(autouse=True)
def screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")


def help_page(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        cli.main([*arguments])
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", TAKE_A_RECIPE)
def test_a_first_page_fits_a_screen(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    page = help_page(capsys, command, "--help")
    assert len(page.splitlines()) <= 40
    assert max(map(len, page.splitlines())) <= 100
    assert page.startswith(f"usage: presence {command} RECIPE.yaml")
    for name in SECTIONS:
        assert f"\n  {name} " in page
    assert f"presence {command} --help SECTION" in page
    assert f"example: presence {command} quickstart.yaml" in page
    assert page == help_page(capsys, command, "-h")


@pytest.mark.parametrize("section", list(SECTIONS))
def test_a_section_explains_each_of_its_fields_and_no_other(section: str, capsys: pytest.CaptureFixture[str]) -> None:
    page = help_page(capsys, "train", "--help", section)
    for field in fields(SECTIONS[section]):
        assert f"--{section}.{field.name}" in page
    assert not any(f"--{other}." in page for other in SECTIONS if other != section)


def test_sections_within_sections_and_single_fields(capsys: pytest.CaptureFixture[str]) -> None:
    for path, field in {
        "data.tokenizer": "data.tokenizer.vocab_size",
        "data.streaming": "data.streaming.lanes",  # null by default
        "data.sources": "data.sources.text_field",  # a list
        "presence.schedule.kind": "presence.schedule.tau_direct",
        "training.steps": "training.micro_batch_size",
    }.items():
        assert f"--{field}" in help_page(capsys, "estimate", "--help", path)
    assert "sections of a recipe" in help_page(capsys, "train", "--help", "run_dir")


def test_everything_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    page = help_page(capsys, "train", "--help", "all")
    assert all(f"--{name}." in page for name in SECTIONS)


@pytest.mark.parametrize("wrong", ["dat", "data.tokeniser", "run_dir.x", "training.steps.x"])
def test_no_such_section(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["train", "--help", wrong])
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"{wrong} is no section of a recipe: it must be one of data, model, presence" in error
