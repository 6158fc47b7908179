"""An embedded corpus: English prose and code out of the Python packages of this environment.

Modules are parsed with ``ast``, never imported. A module gives at most one document of prose (its docstrings) and one
of code (its source without them), both with the module's path as their id, so that a split by document id never puts
the prose of a module on one side and its code on the other.
"""

import ast
import inspect
import os
import sysconfig
import warnings
from collections import Counter
from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import Literal

from presence_ds.data.hashing import stable_hash, text_hash
from presence_ds.data.readers.documents import Document, text_problem
from presence_ds.data.sources.local_files import valid_name, walk

SKIPPED_FOLDERS = frozenset(
    {"__pycache__", "site-packages", "dist-packages", "node_modules"}
    | {"test", "tests", "testing", "idle_test"}
    | {"vendor", "_vendor", "vendored", "_vendored", "extern", "externals", "third_party"}
)
MIN_DOCSTRING_CHARACTERS = 80  # shorter ones are mostly labels such as "Return the name."
MIN_DOCSTRING_SHARE = 0.2  # of a module's source: parsing the others costs more time than their prose is worth
MIN_CODE_CHARACTERS = 400
MAX_MODULE_BYTES = 200_000  # larger modules are mostly generated tables
MAX_PACKAGE_SHARE = 0.2  # of the size limit: one large package must not be most of the corpus


def find_modules() -> list[tuple[Path, str]]:
    """Every module's file and its path below the library folder, in a fixed order that mixes packages."""
    found: dict[str, Path] = {}
    for root in dict.fromkeys(sysconfig.get_path(kind) for kind in ("stdlib", "purelib", "platlib")):
        for folder, files in walk(root, left_out=SKIPPED_FOLDERS) if os.path.isdir(root) else ():
            for file in files:
                path = Path(folder, file)
                if path.suffix == ".py" and not file.startswith("test_") and path.is_file():
                    found.setdefault(valid_name(path.relative_to(root)), path)
    return [(found[name], name) for name in sorted(found, key=lambda name: (stable_hash(0, "module", name), name))]


def read_modules(
    modules: list[tuple[Path, str]], content: Literal["docstrings", "code"], max_megabytes: float | None
) -> Iterator[Document]:
    """Yield one document per module that has enough prose or code; exact duplicates are left out."""
    extract = _docstrings if content == "docstrings" else _code
    seen: set[bytes] = set()
    package_bytes: Counter[str] = Counter()
    package_limit = inf if max_megabytes is None else MAX_PACKAGE_SHARE * max_megabytes * 1e6
    for path, name in modules:
        package = name.partition("/")[0]
        if path.stat().st_size > MAX_MODULE_BYTES or package_bytes[package] >= package_limit:
            continue
        try:
            source = path.read_bytes().decode()
            if content == "docstrings" and _triple_quoted_share(source) < MIN_DOCSTRING_SHARE:
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # invalid escapes in other people's strings
                tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue  # not UTF-8, not this Python's syntax, or a null byte
        if text := extract(source, tree, seen):
            package_bytes[package] += len(text.encode())
            yield Document(name, text)


def _triple_quoted_share(source: str) -> float:
    """Share of the source between triple quotes, without parsing it."""
    return sum(len(text) for text in source.split('"""')[1::2]) / max(len(source), 1)


def _docstring_nodes(tree: ast.Module) -> list[ast.Constant]:
    """The docstrings of a module in the order of the source. Expressions hold none and are not visited."""
    found = []
    blocks: list[ast.AST] = [tree]
    while blocks:
        block = blocks.pop()
        for name in ("body", "orelse", "finalbody", "handlers", "cases"):
            blocks += getattr(block, name, [])
        if isinstance(block, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and block.body:
            first = block.body[0]
            value = first.value if isinstance(first, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                found.append(value)
    return sorted(found, key=lambda node: node.lineno)


def _docstrings(_source: str, tree: ast.Module, seen: set[bytes]) -> str:
    """The module's docstrings that no earlier module had, with blank lines between them."""
    texts = [inspect.cleandoc(str(node.value)) for node in _docstring_nodes(tree)]
    return "\n\n".join(text for text in texts if _is_new(text, MIN_DOCSTRING_CHARACTERS, seen))


def _code(source: str, tree: ast.Module, seen: set[bytes]) -> str:
    """The module without its docstrings and without the comments before the first statement (mostly licences)."""
    lines = source.splitlines(keepends=True)
    for node in _docstring_nodes(tree):
        assert node.end_lineno is not None
        if lines[node.lineno - 1][: node.col_offset].isspace() or node.col_offset == 0:
            lines[node.lineno - 1 : node.end_lineno] = [""] * (node.end_lineno - node.lineno + 1)
    first = next((i for i, line in enumerate(lines) if line.strip() and not line.startswith("#")), len(lines))
    text = "".join(lines[first:])
    return text if _is_new(text, MIN_CODE_CHARACTERS, seen) else ""


def _is_new(text: str, min_characters: int, seen: set[bytes]) -> bool:
    """Whether a text is long enough, valid, and met for the first time; it is remembered in ``seen``."""
    if len(text) < min_characters or text_problem(text, "text") or (digest := text_hash(text)) in seen:
        return False
    seen.add(digest)
    return True
