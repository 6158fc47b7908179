"""The flow can be read off the folders: nothing lower imports anything higher."""

import ast
from pathlib import Path

import pytest

import presence_ds

PACKAGE = Path(presence_ds.__file__).parent
ALLOWED = {
    "capture": {"capture"},
    "influence": {"capture", "influence"},
    "reweighting": {"reweighting"},
    "engine": {"capture", "influence", "reweighting", "engine"},
    "hf": {"capture", "influence", "reweighting", "engine", "hf"},
    "data": {"data"},
    "trainer": {"capture", "influence", "reweighting", "engine", "data", "trainer"},
    "commands": {"capture", "influence", "reweighting", "engine", "data", "trainer", "commands"},
}
SHARED = {"errors", "lazy", "resources", "versions"}


@pytest.mark.parametrize("layer", ALLOWED)
def test_imports_point_downwards(layer: str) -> None:
    files = list((PACKAGE / layer).rglob("*.py"))
    assert files
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            names = []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            for name in names:
                parts = name.split(".")
                if parts[0] == "presence_ds" and len(parts) > 1:
                    assert parts[1] in ALLOWED[layer] | SHARED, f"{file.relative_to(PACKAGE)} imports {name}"
