"""What README and docs/ point to is there: pages, headings, files and fields of the recipe."""

import re
from pathlib import Path

import pytest

from presence_ds.trainer.recipe.recipe import Recipe
from tests.docs.pages import CODE, PAGES
from tests.trainer.checkpoint.rules_table import fields
from tests.trainer.conftest import ROOT

FOLDERS = "presence_ds|tests|benchmarks|recipes|ds_configs|slurm|examples|docs|.ci"
IN_REPOSITORY = re.compile(rf"(?:{FOLDERS})/[\w./-]*".replace(".ci", r"\.ci"))
NOT_COMMITTED = {"slurm/site.sh"}
DOTTED = re.compile(r"([a-z_]+(?:\.[a-z_]+)+)(?::? .*)?", re.DOTALL)
FILE_ENDINGS = {"json", "md", "sh", "yaml"}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for where, target in PAGES[path].links:
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        found = (path.parent / name).resolve() if name else path
        assert found.exists(), f"{where}: {target} is not there"
        assert not anchor or anchor in PAGES[found].anchors, f"{where}: {target} is no heading"


def test_files_that_are_named_are_there() -> None:
    """In the text and in commands: a file that was moved has another name there too."""
    tests = {path.name for path in (ROOT / "tests").rglob("*.py")}
    for code in CODE:
        for word in code.text.split() if code.language == "" else [code.text]:
            if IN_REPOSITORY.fullmatch(word) and word not in NOT_COMMITTED:
                assert (ROOT / word).exists(), f"{code.where}: {word} is not there"
            elif re.fullmatch(r"test_\w+\.py", word):
                assert word in tests, f"{code.where}: {word} is not there"


def test_fields_that_are_named_are_in_the_recipe() -> None:
    """Whole names, such as data.tokenizer.path, and their ends from any section on, such as tokenizer.path."""
    names = [name.replace("[]", "").split(".") for name in fields(Recipe)]
    known = {".".join(name[i:j]) for name in names for i in range(len(name)) for j in range(i + 1, len(name) + 1)}
    sections = {part for name in names for part in name[:-1]}
    found = 0
    for code in CODE:
        dotted = DOTTED.fullmatch(code.text) if code.language is None else None
        if dotted is None:
            continue
        parts = dotted[1].split(".")
        if parts[0] in sections and parts[-1] not in FILE_ENDINGS:
            assert dotted[1] in known, f"{code.where}: the recipe has no {dotted[1]}"
            found += 1
    assert found > 50
