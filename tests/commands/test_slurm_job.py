"""Site files and ready scripts, without a SLURM; `tests/slurm` submits them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from presence_ds.commands.slurm_job import Site, read_site, ready_script, sbatch, sbatch_variables, write_run_directory
from presence_ds.errors import ConfigError
from presence_ds.trainer.run_directory.layout import RunDirectory
from tests.trainer.conftest import ROOT


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the templates, the working directory of a user without settings."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    (tmp_path / "slurm").mkdir()
    for file in (ROOT / "slurm").iterdir():
        if file.name != "site.sh":
            (tmp_path / "slurm" / file.name).write_text(file.read_text())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_missing_site_file_is_named_with_what_to_do(home: Path) -> None:
    with pytest.raises(ConfigError, match=r"site\.sh is missing: cp .*site\.example\.sh .*site\.sh, and edit it"):
        read_site()


def test_the_site_file_is_looked_for_in_order(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The nearest one counts; without templates in the working directory the package's are used."""
    elsewhere = home / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    places = [elsewhere / "slurm" / "site.sh", elsewhere / "site.sh", home / "settings" / "presence_ds" / "site.sh"]
    with pytest.raises(
        ConfigError, match=re.escape(f"{places[1]} is missing: cp {ROOT}/slurm/site.example.sh ")
    ) as raised:
        read_site()
    assert f"nor is there {places[0]} or {places[2]} or {ROOT}/slurm/site.sh" in str(raised.value)
    for place in reversed(places):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"export SBATCH_ACCOUNT={place}\n")
        site = read_site()
        assert (site.home, site.file, site.variables) == (ROOT, place, {"SBATCH_ACCOUNT": str(place)})
    given = home / "given.sh"
    with pytest.raises(
        ConfigError, match=re.escape(f"{given} is missing: cp {ROOT}/slurm/site.example.sh {given}, and")
    ):
        read_site(given)
    given.write_text("export SBATCH_ACCOUNT=given\n")
    assert read_site(given).variables == {"SBATCH_ACCOUNT": "given"}


def test_the_example_is_a_site_file(home: Path) -> None:
    (home / "slurm" / "site.sh").write_text((home / "slurm" / "site.example.sh").read_text())
    site = read_site()
    assert site.gpus_per_node == 8
    assert site.variables["SBATCH_ACCOUNT"] == "my_account"
    left = sbatch_variables(site, {"account": "other", "time": "1:00:00"})
    assert set(left) == set(site.variables) - {"SBATCH_ACCOUNT"}


def test_a_site_file_that_does_not_run(home: Path) -> None:
    (home / "slurm" / "site.sh").write_text("module load cuda\n")
    with pytest.raises(ConfigError, match=r"site\.sh ends with status 127: .*module: command not found"):
        read_site()


@pytest.mark.parametrize(("text", "number"), [("4", 4), ("h100:8", 8), (None, None)])
def test_gpus_per_node(text: str | None, number: int | None) -> None:
    assert Site(Path(), Path("site.sh"), {} if text is None else {"SBATCH_GPUS_PER_NODE": text}).gpus_per_node == number


def test_gpus_per_node_that_are_no_number() -> None:
    with pytest.raises(ConfigError, match=r"SBATCH_GPUS_PER_NODE of site\.sh is all: it must be a number"):
        _ = Site(Path(), Path("site.sh"), {"SBATCH_GPUS_PER_NODE": "all"}).gpus_per_node


@pytest.mark.parametrize("template", ["train", "train_preemptible", "train_task_per_gpu"])
def test_a_ready_script_is_the_template_and_little_more(template: str, home: Path) -> None:
    script = ready_script(Site(home, home / "site.sh"), template, {"nodes": "2", "job-name": "a b"}, home / "run 1")
    assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0
    added = [line for line in script.splitlines() if line not in (home / "slurm" / f"{template}.sbatch").read_text()]
    assert added == [
        "#SBATCH --nodes=2",
        "#SBATCH --job-name='a b'",
        f"export PRESENCE_HOME={home} PRESENCE_SITE={home}/site.sh",
        f"export RUN_DIR='{home}/run 1'",
        f'[ -n "${{PRESENCE_PYTHON:-}}" ] || export PRESENCE_PYTHON={sys.executable}',
        f"set -- '{home}/run 1/slurm/recipe.yaml'",
    ]


def test_without_sbatch(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(home))
    with pytest.raises(ConfigError, match="sbatch is not installed here: submit from a login node"):
        sbatch("--test-only", "", {})


def test_what_is_recorded_gives_access_to_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_very_secret")
    monkeypatch.setenv("WANDB_API_KEY", "very_secret")
    monkeypatch.setenv("NCCL_DEBUG", "INFO")
    directory = RunDirectory(home / "run")
    directory.path.mkdir()
    write_run_directory(directory, "script", {"run_dir": "run"})
    environment = json.loads((directory.slurm / "environment.json").read_text())
    assert environment["variables"]["NCCL_DEBUG"] == "INFO"
    assert "torch" in environment["packages"]
    assert not any("secret" in file.read_text() for file in directory.slurm.glob("*.json"))
    assert (directory.slurm / "job.sbatch").read_text() == "script"


def test_nothing_can_be_written(home: Path) -> None:
    directory = RunDirectory(home / "run")
    (directory.slurm / "recipe.yaml").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"run_dir is .*/run: nothing can be written there .*; free space or quota"):
        write_run_directory(directory, "script", {})
