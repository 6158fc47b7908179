"""The package as a wheel, installed away from the repository: everything that a user needs is in it."""

import json
import os
import site
import subprocess
import sys
from pathlib import Path

import pytest

from presence_ds import cli
from tests.trainer.conftest import ROOT
from tests.wheel import build_wheel

TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
TINY |= {"num_key_value_heads": 2, "max_position_embeddings": 64}


class Installed:
    """A virtual environment with the wheel, which shares its dependencies with this one, and a working directory."""

    def __init__(self, folder: Path) -> None:
        self.work = folder / "work"
        self.work.mkdir()
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
        self.python = folder / "venv" / "bin" / "python"
        pip = [sys.executable, "-m", "pip", "--python", self.python, "install", "--quiet", "--no-deps", "--no-index"]
        subprocess.run([*pip, build_wheel(folder)], check=True, capture_output=True)
        (self.packages,) = (folder / "venv").glob("lib/python*/site-packages")
        # Its folders, but not what its own .pth files add: the repository, where this one is an editable installation.
        (self.packages / "shared.pth").write_text("\n".join(site.getsitepackages()))
        (folder / "bin").mkdir()
        sbatch = folder / "bin" / "sbatch"
        sbatch.write_text("#!/bin/sh\ncat >/dev/null; echo sbatch: Job 1 would start\n")
        sbatch.chmod(0o755)
        self.environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {
            "PATH": os.pathsep.join([str(folder / "bin"), os.environ["PATH"]]),
            "TORCH_EXTENSIONS_DIR": os.environ.get("TORCH_EXTENSIONS_DIR", str(Path(sys.prefix) / "torch_extensions")),
            "XDG_CONFIG_HOME": str(folder / "settings"),
            "DS_ACCELERATOR": "cpu",
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "100",
        }

    def presence(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """``presence ARGUMENTS`` of the wheel in the working directory."""
        return subprocess.run(
            [self.python.with_name("presence"), *arguments],
            cwd=self.work,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
        )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def mine(installed: Installed) -> Path:
    """A folder made by ``presence new``, and a text."""
    made = installed.presence("new", "mine", "--slurm")
    assert made.returncode == 0, made.stderr
    text = "\n".join(json.dumps({"text": f"line {index} of a text"}) for index in range(400))
    (installed.work / "text.jsonl").write_text(text)
    return installed.work / "mine"


def test_what_is_in_it(installed: Installed) -> None:
    helped = installed.presence("--help")
    assert all(f"    {name} " in helped.stdout for name in cli.COMMANDS)
    resources = installed.packages / "presence_ds" / "resources"
    for folder in ("recipes", "ds_configs", "slurm"):
        expected = _below(ROOT / folder) - {"site.sh", "README.md"}
        assert _below(resources / folder) == expected
        assert not (resources / folder).is_symlink()
    assert (installed.packages / "presence_ds" / "py.typed").is_file()
    page = Path("presence_ds", "trainer", "report", "page")
    for folder in ("assets", "templates"):
        assert _below(installed.packages / page / folder) == _below(ROOT / page / folder)


def _below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


@pytest.mark.parametrize("recipe", [path.stem for path in sorted((ROOT / "recipes").rglob("*.yaml"))])
def test_a_new_folder_has_all_that_a_recipe_names(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    cli.main(["new", "deep/mine", "--recipe", recipe])
    (source,) = (ROOT / "recipes").rglob(f"{recipe}.yaml")
    scripts = {path.name for path in source.parent.glob("*.sh")}
    following = "deep/mine/run.sh deep/mine/mine.yaml FOLDER" if scripts else "presence train deep/mine/mine.yaml"
    assert f"next: {following}\n" in capsys.readouterr().out
    text = (tmp_path / "deep" / "mine" / "mine.yaml").read_text()
    assert "ds_configs/" not in text
    for path in (tmp_path / "deep" / "mine").glob("*"):
        assert "recipes/" not in path.read_text()
    assert {path.name for path in (tmp_path / "deep" / "mine").glob("*.sh")} == scripts
    named = text.split("\ndeepspeed: ")[1].split()[0]
    assert (tmp_path / "deep" / "mine" / named).read_text() == (ROOT / "ds_configs" / named).read_text()
    (tmp_path / "file").touch()
    for taken, wrong in {
        "deep/mine": "it is there already",
        "file": "there already",
        "file/x": "cannot be made",
    }.items():
        with pytest.raises(SystemExit) as ended:
            cli.main(["new", taken])
        assert ended.value.code == 1
        assert wrong in capsys.readouterr().err
    assert (tmp_path / "deep" / "mine" / "mine.yaml").read_text() == text


def test_a_recipe_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["new", str(tmp_path / "mine"), "--recipe", "gpt5"])
    assert "recipe is gpt5: it must be one of llama_1b_zero3, " in capsys.readouterr().err
    assert not (tmp_path / "mine").exists()


@pytest.mark.long
def test_it_trains_a_copied_recipe(installed: Installed, mine: Path) -> None:
    overrides = [f"--model.config.{name}={value}" for name, value in TINY.items()]
    overrides += ['--data.sources=[{"name": "lines", "path": "text.jsonl"}]', "--data.sequence_length=32"]
    overrides += ["--data.tokenizer.vocab_size=300", "--training.steps=2", "--training.micro_batch_size=2"]
    overrides += ["--lr_schedule.warmup_steps=1", "--run_dir=run", "--num_processes=1"]
    trained = installed.presence("train", "mine/mine.yaml", *overrides)
    assert trained.returncode == 0, trained.stderr
    assert json.loads((installed.work / "run" / "summary.json").read_text())["steps"] == 2


def test_it_estimates_with_the_default_of_deepspeed(installed: Installed, mine: Path) -> None:
    recipe = installed.work / "plain.yaml"
    lines = (mine / "mine.yaml").read_text().splitlines(keepends=True)
    recipe.write_text("".join(line for line in lines if not line.startswith("deepspeed:")))
    estimated = installed.presence("estimate", "plain.yaml", "--ranks", "2")
    assert estimated.returncode == 0, estimated.stderr
    assert "ZeRO" in estimated.stdout


def test_it_submits_from_any_folder(installed: Installed, mine: Path) -> None:
    recipe = ["slurm", "mine/mine.yaml", "--dry-run"]
    refused = installed.presence(*recipe)
    assert refused.returncode == 1
    assert "work/site.sh is missing: cp " in refused.stderr
    example = Path(refused.stderr.split(" cp ")[1].split()[0])
    assert installed.packages in example.parents
    (installed.work / "site.sh").write_text(example.read_text())
    shown = installed.presence(*recipe)
    assert shown.returncode == 0, shown.stderr
    assert (
        f"export PRESENCE_HOME={installed.packages}/presence_ds/resources PRESENCE_SITE={installed.work}/site.sh\n"
        in (shown.stdout)
    )
    assert "1 nodes x 8 ranks; sbatch: Job 1 would start" in shown.stdout
    assert str(ROOT) not in shown.stdout


def test_templates_by_hand_name_the_python_of_the_wheel(installed: Installed, mine: Path) -> None:
    assert f"\nPRESENCE_PYTHON={installed.python}\n" in (mine / "slurm" / "site.sh").read_text()
    assert (mine / "slurm" / "chain.sh").stat().st_mode & 0o111
