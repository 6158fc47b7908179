"""Recipes small enough to train in seconds, and real launches of them."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORDS = ["the", "model", "of", "a", "small", "world", "reads", "one", "line", "after", "another", "and", "learns"]


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Two CPU ranks wherever the tests run, no network, and no credentials of whoever runs them."""
    home = tmp_path_factory.mktemp("home")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    return inherited | {
        "DS_ACCELERATOR": "cpu",
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "HOME": str(home),
        "COLUMNS": "120",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }


@pytest.fixture(scope="session")
def corpus_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A jsonl file of 400 short documents, no two alike."""
    path = tmp_path_factory.mktemp("corpus") / "lines.jsonl"
    with open(path, "w") as file:
        for index in range(400):
            words = [WORDS[(index * 7 + position * (1 + index % 5)) % len(WORDS)] for position in range(40)]
            file.write(json.dumps({"text": f"{index} " + " ".join(words), "id": f"d{index}"}) + "\n")
    return path


@pytest.fixture
def tiny_recipe(corpus_file: Path, tmp_path: Path) -> Path:
    """A recipe file; tests override what they are about."""
    return write_recipe(tmp_path / "tiny.yaml", corpus_file)


@pytest.fixture
def streaming_recipe(tiny_recipe: Path, tmp_path: Path) -> Path:
    """The tiny recipe with a second, compressed source, a validation source, and nothing that needs stored samples."""
    texts = [f"{number} " + " ".join(WORDS[number % 11 :: 2]) for number in range(100)]
    rows = "".join(json.dumps({"text": text, "id": f"m{number}"}) + "\n" for number, text in enumerate(texts))
    (tmp_path / "more.jsonl.gz").write_bytes(gzip.compress(rows.encode()))
    (tmp_path / "dev.txt").write_text("\n".join(f"{number} {' '.join(WORDS)}" for number in range(60)))
    recipe = yaml.safe_load(tiny_recipe.read_text())
    (lines,) = recipe["data"]["sources"]
    more = {"name": "more", "path": str(tmp_path / "more.jsonl.gz"), "id_field": "id"}
    recipe["data"] |= {
        "sources": [lines | {"weight": 3.0}, more | {"weight": 1.0}],
        "validation_sources": [{"name": "dev", "path": str(tmp_path / "dev.txt"), "documents": "line"}],
        "noise": None,
        "streaming": {"lanes": 4, "buffer_samples": 4, "tokenizer_megabytes": 0.005},
    }
    tiny_recipe.write_text(yaml.safe_dump(recipe))
    return tiny_recipe


def write_recipe(path: Path, corpus_file: Path) -> Path:
    """A GPT-2 with dropout, two accumulation steps and noise, so that resuming has every kind of state to restore."""
    recipe = {
        "model": {
            "config": {
                "model_type": "gpt2",
                "n_embd": 32,
                "n_layer": 2,
                "n_head": 2,
                "n_positions": 64,
                "resid_pdrop": 0.1,
            }
        },
        "data": {
            "sources": [{"name": "lines", "path": str(corpus_file), "id_field": "id"}],
            "noise": [{"share": 0.2}],
            "validation_fraction": 0.1,
            "sequence_length": 32,
            "tokenizer": {"vocab_size": 300},
        },
        "deepspeed": str(ROOT / "ds_configs" / "zero2.json"),
        "presence": {"preset": "paper", "schedule": {"switch_fraction": 0.5}},
        "optimizer": {"lr": 1e-3},
        "lr_schedule": {"warmup_steps": 2},
        "training": {"steps": 60, "micro_batch_size": 4, "gradient_accumulation_steps": 2, "precision": "fp32"},
        "evaluation": {"every_steps": 30, "max_batches": 2},
        "checkpoint": {"every_steps": 20},
        "logging": {"every_steps": 5},
    }
    path.write_text(yaml.safe_dump(recipe))
    return path


def presence_train(
    *arguments: str | Path, environment: dict[str, str], cwd: Path, torchrun: bool = False
) -> subprocess.CompletedProcess[str]:
    """``presence train`` in a process of its own, on two ranks that DeepSpeed's launcher starts, or torchrun."""
    if torchrun:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        command += ["-m", "presence_ds", "train", *map(str, arguments)]
    else:
        command = [sys.executable, "-m", "presence_ds", "train", *map(str, arguments), "--num_processes", "2"]
    return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=300)


def read_metrics(run_dir: Path) -> list[dict[str, object]]:
    """metrics.jsonl, every line of which must be complete."""
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def read_scores(run_dir: Path) -> list[dict[str, object]]:
    """Every score record of a run, in the order the samples were seen."""
    files = sorted((run_dir / "scores").iterdir())
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    return sorted(rows, key=lambda row: (row["step"], row["rank"], row["micro_step"], row["position"]))
