"""A run directory with a batch script that is ready to be submitted, made from a template of ``slurm/``.

RUN_DIR/slurm/
  job.sbatch          the template, with the options and the arguments of this run
  recipe.yaml         the recipe as resolved, which the job trains
  code.json           version, commit and, if there are changes that are not committed, code.diff beside it
  environment.json    Python, packages, and the variables that matter, without secrets
"""

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import yaml

import presence_ds
from presence_ds.errors import ConfigError
from presence_ds.resources import resource
from presence_ds.trainer.run_directory.layout import RunDirectory, write_atomically, write_json

PREFIXES = "NCCL_ GLOO_ CUDA_ HF_ DS_ TORCH_ OMP_ PRESENCE_ SBATCH_ WANDB_ PYTHON"  # of variables that are shown
SECRET = re.compile(r"TOKEN|KEY|SECRET|PASSWORD", re.IGNORECASE)


@dataclass(frozen=True)
class Site:
    """The templates, and what the site file sets.

    Attributes:
        home: the folder in which slurm/ holds the templates: that of a user, of the repository, or of the package.
        file: the site file.
        variables: those that the site file exports for sbatch, SBATCH_*.
    """

    home: Path
    file: Path
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def gpus_per_node(self) -> int | None:
        """GPUs of a node that a job gets; None on a cluster without."""
        text = self.variables.get("SBATCH_GPUS_PER_NODE")
        if text is None:
            return None
        number = text.split(":")[-1]  # also h100:8
        if not number.isdigit() or int(number) == 0:
            raise ConfigError(f"SBATCH_GPUS_PER_NODE of {self.file} is {text}: it must be a number, or KIND:NUMBER")
        return int(number)


def read_site(given: Path | None = None) -> Site:
    """Find the templates, which are those of the package unless the working directory has its own, and the site file.

    The site file is ``given``, or else the first of slurm/site.sh and site.sh in the working directory,
    presence_ds/site.sh among the user's settings (XDG_CONFIG_HOME), and slurm/site.sh beside the templates.

    Raises:
        ConfigError: there is no site file, or it does not run.
    """
    here = Path.cwd()
    home = here if (here / "slurm" / "common.sh").is_file() else resource("slurm").parent
    settings = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    places = [here / "slurm" / "site.sh", here / "site.sh", settings / "presence_ds" / "site.sh"]
    places = [given.expanduser().absolute()] if given else [*places, home / "slurm" / "site.sh"]
    site = next((place for place in places if place.is_file()), None)
    if site is None:
        site = places[0] if given or home == here else here / "site.sh"
        others = [str(place) for place in dict.fromkeys(places) if place != site]
        raise ConfigError(
            f"{site} is missing: cp {home / 'slurm' / 'site.example.sh'} {site}, and edit it"
            + (f"; nor is there {' or '.join(others)}" if others else "")
        )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SBATCH_")}
    read = _run(
        ["bash", "-euc", '. "$1" >&2; env -0', "site", str(site)], env=environment | {"PRESENCE_HOME": str(home)}
    )
    if read.returncode != 0:
        raise ConfigError(f"{site} ends with status {read.returncode}: {' '.join(read.stderr.split())}")
    variables = dict(line.split("=", 1) for line in read.stdout.split("\0") if "=" in line)
    return Site(home, site, {name: value for name, value in variables.items() if name.startswith("SBATCH_")})


def ready_script(site: Site, template: str, options: dict[str, str], run_dir: Path) -> str:
    """The template, with sbatch's options after its own, which they override, and the arguments of one run."""
    text = (site.home / "slurm" / f"{template}.sbatch").read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    last = max(number for number, line in enumerate(lines) if line.startswith("#SBATCH"))
    header = [f"#SBATCH --{name}={shlex.quote(value)}\n" for name, value in options.items()]
    header += [
        "\n",
        f"export PRESENCE_HOME={shlex.quote(str(site.home))} PRESENCE_SITE={shlex.quote(str(site.file))}\n",
        f"export RUN_DIR={shlex.quote(str(run_dir))}\n",
        f'[ -n "${{PRESENCE_PYTHON:-}}" ] || export PRESENCE_PYTHON={shlex.quote(sys.executable)}\n',
        f"set -- {shlex.quote(str(run_dir / 'slurm' / 'recipe.yaml'))}\n",
    ]
    return "".join([*lines[: last + 1], *header, *lines[last + 1 :]])


def sbatch_variables(site: Site, options: dict[str, str]) -> dict[str, str]:
    """The site's variables but for those that an option of the script is to override: sbatch has it the other way."""
    names = {"SBATCH_TIMELIMIT" if name == "time" else "SBATCH_" + name.upper().replace("-", "_") for name in options}
    return {name: value for name, value in site.variables.items() if name not in names}


def write_run_directory(directory: RunDirectory, script: str, recipe: dict[str, Any]) -> None:
    """Write RUN_DIR/slurm.

    Raises:
        ConfigError: nothing can be written there.
    """
    folder = directory.slurm
    try:
        folder.mkdir(exist_ok=True)
        write_atomically(folder / "recipe.yaml", yaml.safe_dump(recipe, sort_keys=False))
        _write_code_version(folder)
        write_json(folder / "environment.json", _environment())
        write_atomically(folder / "job.sbatch", script)
    except OSError as error:
        raise ConfigError(
            f"run_dir is {directory.path}: nothing can be written there ({error.strerror}); free space or quota, or "
            f"name another directory"
        ) from None


def sbatch(option: str, script: str, variables: dict[str, str]) -> str:
    """What sbatch says of a script: with ``--test-only`` when and where it would start, with ``--parsable`` its job.

    Raises:
        ConfigError: sbatch is not there, or refuses the job.
    """
    if shutil.which("sbatch") is None:
        raise ConfigError("sbatch is not installed here: submit from a login node of the cluster")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SBATCH_", "SLURM_JOB"))}
    done = _run(["sbatch", option], input=script, env=environment | variables)
    said = " ".join((done.stdout + done.stderr).split())
    if done.returncode != 0:
        raise ConfigError(
            f"sbatch refuses the job: {said}; correct the options, or account and partition in the site file"
        )
    return said


def _run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program, whose output may be anything that is mostly UTF-8."""
    return subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", errors="surrogateescape", check=False, **options
    )


def _write_code_version(folder: Path) -> None:
    home = Path(presence_ds.__file__).parents[1]

    def git(*arguments: str) -> str | None:
        if not (home / ".git").exists():  # installed, be it in a folder of somebody's repository
            return None
        try:
            done = _run(["git", "-C", str(home), *arguments])
        except FileNotFoundError:
            return None
        return done.stdout if done.returncode == 0 else None

    commit, changes = git("rev-parse", "HEAD"), git("diff", "HEAD")
    version = {"version": presence_ds.__version__, "commit": commit and commit.strip(), "changed": bool(changes)}
    write_json(folder / "code.json", version)
    if changes:
        write_atomically(folder / "code.diff", changes)


def _environment() -> dict[str, Any]:
    """What a run may depend on, and nothing that gives access to anything."""
    variables = {
        name: value
        for name, value in sorted(os.environ.items())
        if name.startswith(tuple(PREFIXES.split())) and not SECRET.search(name)
    }
    return {
        "python": sys.version,
        "executable": sys.executable,
        "platform": platform.platform(),
        "host": platform.node(),
        "packages": {
            found.name: found.version for found in sorted(distributions(), key=lambda found: found.name.lower())
        },
        "variables": variables,
    }
