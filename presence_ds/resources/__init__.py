"""What comes with the package beside code: recipes, DeepSpeed settings, templates for SLURM.

In a checkout these are links to the folders of the repository, in an installed package the files themselves.
"""

from importlib.resources import files
from pathlib import Path


def resource(path: str | Path = "") -> Path:
    """Where ``path``, such as recipes/quickstart.yaml, would be among them; in a checkout, in the repository itself."""
    return Path(str(files(__name__))).joinpath(path).resolve()
