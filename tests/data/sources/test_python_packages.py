import sys
from pathlib import Path

from presence_ds.data.sources.python_packages import find_modules, read_modules

PROSE = (
    "A sentence about what this object does, long enough that it is worth training on, and then a little more of it."
)
MODULE = f'''# A licence of many lines
# that every module repeats.
"""{PROSE} In the module."""
import os


class Thing:
    """
    {PROSE} In the class.

        Indented.
    """

    def method(self):
        """Tiny."""
        text = """{PROSE} A string that is no docstring."""
        return text


async def one_line(): """{PROSE} On the line of its function."""


if os.name:
    def nested(x):
        """{PROSE} In a nested function."""
        return [x + {1}, "{"a" * 400}"]
'''


def write(folder: Path, modules: dict[str, bytes]) -> list[tuple[Path, str]]:
    for name, content in modules.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return [(folder / name, name) for name in modules]


def test_docstrings_of_a_module_are_one_document(tmp_path: Path) -> None:
    (document,) = read_modules(write(tmp_path, {"pkg/a.py": MODULE.encode()}), "docstrings", None)
    assert document.id == "pkg/a.py"
    assert document.text.split("\n\n") == [
        f"{PROSE} In the module.",
        f"{PROSE} In the class.",
        "    Indented.",
        f"{PROSE} On the line of its function.",
        f"{PROSE} In a nested function.",
    ]


def test_code_comes_without_docstrings_and_licence(tmp_path: Path) -> None:
    (document,) = read_modules(write(tmp_path, {"pkg/a.py": MODULE.encode()}), "code", None)
    assert document.id == "pkg/a.py"
    assert document.text.startswith("import os\n")
    assert "In the class" not in document.text
    assert "Tiny" not in document.text
    assert "A string that is no docstring" in document.text
    assert "        return [x + 1" in document.text


def test_unusable_modules_and_duplicates_are_left_out(tmp_path: Path) -> None:
    modules = {
        "pkg/a.py": MODULE.encode(),
        "pkg/copy.py": MODULE.encode(),
        "pkg/syntax.py": MODULE.encode() + b"\ndef broken(:\n",
        "pkg/latin.py": MODULE.replace("Indented", "\xe9").encode("latin-1"),
        "pkg/null.py": MODULE.encode() + b"\0",
        "pkg/short.py": b'"""Tiny."""\nx = 1\n',
        "pkg/empty.py": b"",
        "pkg/surrogate.py": b'"""' + b"\\ud800 lone " * 20 + b'"""\n',
        "pkg/table.py": MODULE.encode() + b"x = 1\n" * 100_000,
    }
    for content in ("docstrings", "code"):
        assert [document.id for document in read_modules(write(tmp_path, modules), content, None)] == ["pkg/a.py"]


def test_one_package_cannot_fill_the_corpus(tmp_path: Path) -> None:
    modules = {f"big/{i}.py": f'"""{PROSE} Number {i}."""\n'.encode() for i in range(20)}
    modules |= {f"small{i}/a.py": f'"""{PROSE} Other {i}."""\n'.encode() for i in range(4)}
    documents = list(read_modules(write(tmp_path, modules), "docstrings", 0.002))
    assert sum(document.id.startswith("big/") for document in documents) == 4  # a fifth of 2000 bytes, rounded up
    assert sum(document.id.startswith("small") for document in documents) == 4


def test_this_environment_is_read_in_a_fixed_order_without_imports() -> None:
    modules = find_modules()
    assert modules == find_modules()
    folders = [set(Path(name).parts[:-1]) for _, name in modules]
    assert not any(parts & {"tests", "test", "_vendor", "site-packages"} for parts in folders)
    packages = {name.partition("/")[0] for _, name in modules}
    assert {"json", "transformers", "torch", "numpy"} <= packages
    imported = set(sys.modules)
    documents = list(read_modules(modules[:150], "docstrings", None))
    assert documents == list(read_modules(modules[:150], "docstrings", None))
    assert len(documents) > 20
    assert set(sys.modules) == imported
