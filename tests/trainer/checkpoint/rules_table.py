"""The table of docs/checkpoints.md that has every field's rule: ``python -m tests.trainer.checkpoint.rules_table``."""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

from presence_ds.engine.resume_rules import Rule
from presence_ds.trainer.checkpoint.recipe_rules import RECIPE

DOCS = Path(__file__).parents[3] / "docs" / "checkpoints.md"
HEAD = "| section | fields | a change is |\n|---|---|---|\n"


def fields(kind: Any, prefix: str = "") -> Iterator[str]:
    """Every field of a recipe that holds a value, by its whole name; of a list of sections, as NAME[].FIELD."""
    for name, hint in get_type_hints(kind).items():
        inside = [(option, "") for option in (hint, *get_args(hint))]
        inside += [(part, "[]") for option, _ in inside for part in get_args(option)]
        section = next(((option, mark) for option, mark in inside if dataclasses.is_dataclass(option)), None)
        if section is None:
            yield prefix + name
        else:
            in_a_list = "list" in str(hint)
            yield from fields(section[0], f"{prefix}{name}{'[]' if in_a_list else ''}.")


def effect(rule: Rule) -> str:
    """What a change leads to, in words."""
    words = {"applied": "applied", "refused": "**refused**", "none": "of no effect"}[rule.effect]
    if rule.where:
        words += " with " + " or ".join(rule.where) + ", else applied"
    return f"{words}: {rule.why}" if rule.why else words


def table() -> str:
    """Every rule, in the order of the recipe."""
    lines = []
    for names, rule in RECIPE:
        sections = [name.rpartition(".")[0].replace(".", "/") for name in names.split()]
        section = os.path.commonpath(sections).replace("/", ".")
        inside = ", ".join(f"`{name.removeprefix(section).lstrip('.')}`" for name in names.split())
        lines.append(f"| {f'`{section}`' if section else ''} | {inside} | {effect(rule)} |\n")
    return HEAD + "".join(lines)


if __name__ == "__main__":
    print(table())
