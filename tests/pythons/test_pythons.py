"""Settings, help and errors out of a wheel on other Pythons, with the few packages that these need and no torch.

`tests/test_wheel.py` trains with the Python that runs the tests.
"""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from presence_ds import cli
from tests.trainer.conftest import ROOT
from tests.wheel import build_wheel

VERSIONS = [
    version for version in ("3.10", "3.11", "3.12", "3.13", "3.14") if not sys.version.startswith(f"{version}.")
]
LIGHT = ("jsonargparse", "pyyaml", "rich", "psutil", "numpy", "huggingface_hub", "packaging", "backports.zstd")


def find_pythons() -> dict[str, Path]:
    """Interpreters by version: those of the search path, and pyenv's."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = {}
    for version in VERSIONS:
        candidates = [shutil.which(f"python{version}"), *sorted(root.glob(f"{version}.*/bin/python"))]
        for candidate in filter(None, candidates):
            asked = subprocess.run([candidate, "--version"], capture_output=True, text=True)  # pyenv's may be a stub
            if asked.returncode == 0 and asked.stdout.startswith(f"Python {version}."):
                found[version] = Path(candidate)
                break
    return found


PYTHONS = find_pythons()


def requirements() -> list[str]:
    """The light ones among the package's own, with their bounds."""
    lines = re.findall(r'^    "(.+)",$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    return [line for line in lines if re.split(r"[\[>=;]", line)[0].strip() in LIGHT]


@dataclass
class Environment:
    """A virtual environment of some Python, with the wheel and the light packages, and a working directory."""

    folder: Path
    work: Path

    def run(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment in the working directory."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        program = [self.folder / "bin" / arguments[0], *arguments[1:]]
        return subprocess.run(
            program, cwd=self.work, env=environment | {"COLUMNS": "100"}, capture_output=True, text=True
        )


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session", params=VERSIONS)
def environment(request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    if request.param not in PYTHONS:
        pytest.skip(f"there is no Python {request.param} on this machine")
    made = Environment(tmp_path_factory.mktemp("venv"), tmp_path_factory.mktemp("work"))
    subprocess.run([PYTHONS[request.param], "-m", "venv", made.folder], check=True)
    # with its own pip: an older one, as Python 3.11 may have brought it here, does not run on 3.12
    pip = [made.folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--no-compile", *requirements()], check=True)
    subprocess.run([*pip, "--no-deps", "--no-compile", wheel], check=True)
    return made


def test_every_file_compiles(environment: Environment) -> None:
    (packages,) = environment.folder.glob("lib/python*/site-packages/presence_ds")
    compiled = environment.run("python", "-W", "error", "-m", "compileall", "-q", packages)
    assert compiled.returncode == 0, compiled.stdout


def test_what_needs_no_torch(environment: Environment) -> None:
    """Help, a new folder, the fields of sections, a recipe that is read, and lines about what is wrong with one."""
    helped = environment.run("presence", "--help")
    assert (helped.returncode, helped.stderr) == (0, "")
    assert all(f"    {name} " in helped.stdout for name in cli.COMMANDS)
    assert environment.run("presence", "new", "mine").returncode == 0
    section = environment.run("presence", "train", "--help", "data.tokenizer")
    assert section.returncode == 0, section.stderr
    assert "--data.tokenizer.vocab_size" in section.stdout
    read = environment.run("presence", "train", "mine/mine.yaml", "--optimizer.lr=0.25", "--print_config")
    assert read.returncode == 0, read.stderr
    assert "  lr: 0.25\n" in read.stdout
    for wrong, expected in {
        "--training.steps=0": "training.steps is 0: it must be at least 1",
        "--presence.signal=novelty": "presence.signal",
    }.items():
        refused = environment.run("presence", "train", "mine/mine.yaml", wrong)
        assert refused.returncode == 1
        assert expected in refused.stderr
        assert refused.stderr.count("\n") == 1, refused.stderr


def test_the_package_itself(environment: Environment) -> None:
    code = "import presence_ds; presence_ds.PresenceConfig(projection_dim=8).validate(); print(presence_ds.__version__)"
    assert environment.run("python", "-W", "error", "-c", code).stdout == "0.1.0\n"
