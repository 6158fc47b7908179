"""The flow can be read off the folders: nothing lower imports anything higher."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import presence_ds

PACKAGE = Path(presence_ds.__file__).parent
METHOD = {"capture", "influence", "reweighting", "engine"}
ALLOWED = {
    "capture": {"capture"},
    "influence": {"capture", "influence"},
    "reweighting": {"reweighting"},
    "engine": METHOD,
    "hf": METHOD | {"hf"},
    "data": {"data"},
    "launch": {"launch"},
    "trainer": METHOD | {"data", "launch", "trainer"},
    "commands": METHOD | {"data", "launch", "trainer", "commands"},
}
SHARED = {"errors", "lazy", "printable", "resources", "sections", "transfers", "versions"}
# Inside presence_ds/trainer, from the bottom up. Settings (*config.py) stand beside what they set and import none of
# it.
FLOORS = (
    "ranks",
    "run_directory",
    "building",
    "recipe",
    "estimate",
    "transfer",
    "trainer",
    "batches",
    "checkpoint",
    "callbacks",
    "trackers",
    "gain",
    "samples",
    "scores",
    "scoring",
    "status",
    "report",
    "run",
)


def imported(file: Path) -> Iterator[str]:
    """Every module of this package that ``file`` imports, as a dotted name below ``presence_ds``."""
    for node in ast.walk(ast.parse(file.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            if name.startswith("presence_ds."):
                yield name.removeprefix("presence_ds.")


def floor(name: str) -> int:
    """The floor of the module ``name`` below ``presence_ds.trainer``."""
    parts = name.split(".")
    if parts[-1].endswith("config"):
        return 0
    if parts == ["callbacks", "callback"]:
        parts = ["trainer"]  # the loop's own view of them
    return FLOORS.index(parts[0])


@pytest.mark.parametrize("layer", ALLOWED)
def test_imports_point_downwards(layer: str) -> None:
    files = list((PACKAGE / layer).rglob("*.py"))
    assert files
    for file in files:
        for name in imported(file):
            assert name.split(".")[0] in ALLOWED[layer] | SHARED, f"{file.relative_to(PACKAGE)} imports {name}"


def test_imports_inside_the_trainer_point_downwards() -> None:
    folder = PACKAGE / "trainer"
    for file in folder.rglob("*.py"):
        module = ".".join(file.relative_to(folder).with_suffix("").parts)
        if module.endswith("__init__"):
            continue  # names that are imported when they are asked for
        for name in imported(file):
            if name.startswith("trainer."):
                name = name.removeprefix("trainer.")
                assert floor(name) <= floor(module), f"trainer.{module} imports {name}"


def test_no_folder_is_flat_again() -> None:
    """What a stranger looks for is a folder name: beside the folders of the trainer only what puts them together."""
    assert {file.stem for file in (PACKAGE / "trainer").glob("*.py")} <= {"__init__", "trainer", "batches", "run"}


def test_files_are_short() -> None:
    """At most 350 lines in any file, 120 in the middle one."""
    root = PACKAGE.parent
    lines = {
        file: len(file.read_text().splitlines())
        for name in ("presence_ds", "tests", "benchmarks", "study")
        for file in (root / name).rglob("*.py")
    }
    assert not {str(file.relative_to(root)): count for file, count in lines.items() if count > 350}
    for name in ("presence_ds", "tests"):
        of = sorted(count for file, count in lines.items() if root / name in file.parents and count)
        assert of[len(of) // 2] <= 120
