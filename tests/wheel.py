"""Building the package as a user gets it."""

import shutil
import subprocess
import sys
from pathlib import Path

from tests.trainer.conftest import ROOT


def build_wheel(folder: Path) -> Path:
    """A wheel of the package, built from a copy: setuptools leaves files in the folder that it builds."""
    source = folder / "source"
    source.mkdir()
    for name in ("presence_ds", "recipes", "ds_configs", "slurm"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    (source / "slurm" / "site.sh").write_text("# of whoever builds it\n")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", folder, source], check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel
