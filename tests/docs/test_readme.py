"""The front page: its length, its picture of the package, and its table of what to set."""

import re
from copy import deepcopy
from pathlib import Path

import pytest
import yaml

import presence_ds
from presence_ds import PresenceConfig
from tests.docs.pages import PAGES, README
from tests.test_layering import imported

DEVELOPMENT = README.parent / "docs" / "development.md"
PACKAGE = Path(presence_ds.__file__).parent
LINES = 150


def test_it_is_short() -> None:
    assert README.read_text().count("\n") <= LINES


def pictured(page: Path = DEVELOPMENT) -> list[str]:
    """The folders of a page's picture below presence_ds/, from top to bottom."""
    (picture,) = (code.text for code in PAGES[page].code if code.text.startswith("presence_ds/\n"))
    found: list[str] = []
    above: list[str] = []
    for line in picture.splitlines()[1:]:
        indent, name = re.match(r"( +)(\w+)/ +\S", line).groups()  # type: ignore[union-attr]
        above[len(indent) // 2 - 1 :] = [name]
        found.append("/".join(above))
    return found


def test_the_picture_is_the_tree() -> None:
    folders = {path.parent.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")} - {"."}
    assert sorted(pictured()) == sorted(folders)
    assert pictured(README) == [name for name in pictured() if "/" not in name]


def test_the_picture_is_read_from_top_to_bottom() -> None:
    """As its words say, nothing imports a folder below its own; but a section of the recipe stands where it is used."""
    places = {name: place for place, name in enumerate(pictured())}
    for name, place in places.items():
        beside = {other: where for other, where in places.items() if Path(other).parent == Path(name).parent}
        for file in (PACKAGE / name).rglob("*.py"):
            for module in imported(file):
                folder = next(
                    (other for other in beside if f"{module}.".startswith(f"{other.replace('/', '.')}.")), name
                )
                lower = beside[folder] > place and not module.endswith("config") and folder != "resources"
                assert not lower, f"{file.relative_to(PACKAGE)} imports {module}"


def situations() -> dict[str, dict[str, object]]:
    """Of each row of the table that states fields of the section, its words and those fields."""
    table = README.read_text().split("## Your situation\n")[1].split("\n## ")[0]
    rows = {}
    for row in re.findall(r"^\| (.*) \|$", table, re.MULTILINE):
        section: dict[str, object] = {}
        for name, value in re.findall(r"`([\w.]+): ([^`]+)`", row):
            inner = section
            *outer, last = name.split(".")
            for part in outer:
                inner = inner.setdefault(part, {})  # type: ignore[assignment]
            if last in inner:  # an alternative of the same row
                rows[f"{row} ({inner[last]})"] = deepcopy(section)
            inner[last] = yaml.safe_load(value)
        if section:
            rows[row] = section
    return rows


@pytest.mark.parametrize("row", situations(), ids=lambda row: row.split(" | ")[0])
def test_a_situation_has_settings_that_go_together(row: str) -> None:
    config = PresenceConfig.from_mapping(situations()[row])
    config.fill_training_steps(100)
    config.validate()
