"""Text is UTF-8 whatever the locale says: no file, pipe or stream takes its encoding from there."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import nn

import presence_ds
from presence_ds.errors import ConfigError
from presence_ds.trainer.recipe.deepspeed import read_deepspeed_json

ROOT = Path(presence_ds.__file__).parent.parent
PROCESSES = {"run", "Popen", "check_output", "call", "check_call"}


def without_encoding(tree: ast.Module) -> Iterator[int]:
    """Lines of calls that read or write text in the locale's encoding."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        owner = getattr(node.func.value, "id", "") if isinstance(node.func, ast.Attribute) else ""
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        if "encoding" in given:
            continue
        if name in ("read_text", "write_text") and isinstance(node.func, ast.Attribute):
            yield node.lineno
        elif name in ("open", "fdopen", "NamedTemporaryFile", "TemporaryFile") and (owner, name) != ("os", "open"):
            place = 0 if name.endswith("File") or (name == "open" and owner) else 1
            mode = given.get("mode", node.args[place] if len(node.args) > place else None)
            binary = "w+b" if name.endswith("File") else "r"
            stated = binary if mode is None else getattr(mode, "value", "b")  # a name says nothing
            if isinstance(stated, str) and "b" not in stated:
                yield node.lineno
        elif (name == "TextIOWrapper" and len(node.args) < 2) or (
            name in PROCESSES and {"text", "universal_newlines"} & given.keys()
        ):
            yield node.lineno


def test_every_text_has_its_encoding() -> None:
    found = []
    for folder in ("presence_ds", "benchmarks", "examples"):
        for file in (ROOT / folder).rglob("*.py"):
            tree = ast.parse(file.read_text(encoding="utf-8"))
            found += [f"{file.relative_to(ROOT)}:{line}" for line in without_encoding(tree)]
    assert found == []


def test_settings_of_deepspeed_as_other_editors_write_them(tmp_path: Path) -> None:
    path = tmp_path / "zero.json"
    path.write_bytes(b"\xef\xbb\xbf" + b'{"zero_optimization": {"stage": 1}}')
    assert read_deepspeed_json(path)["zero_optimization"] == {"stage": 1}
    for encoding in ("utf-16", "latin-1"):
        path.write_text('{"zero_optimization": {"stage": 1}, "größe": 1}', encoding=encoding)
        with pytest.raises(ConfigError, match=r"zero\.json: it cannot be read"):
            read_deepspeed_json(path)
        with pytest.raises(ConfigError, match=r"zero\.json: it cannot be read"):
            presence_ds.initialize(model=nn.Linear(1, 1), config=path)
