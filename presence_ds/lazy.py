"""Names of a package that are imported when they are first asked for (PEP 562).

Settings stand beside what they set, in packages that need torch and more; who only wants settings does not wait for it.
"""

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any


def lazy_names(package: str, file: str) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package, for the names that its ``file`` imports under ``if TYPE_CHECKING``.

    None may be that of a module of the package, which would take its place as soon as it is imported.
    """
    homes = {
        name.name: node.module
        for block in ast.parse(Path(file).read_text(encoding="utf-8")).body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom) and node.module
        for name in node.names
    }

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(homes[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    return get
