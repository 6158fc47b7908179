"""A run that is killed and resumed is the run that nothing disturbed; what both leave, exported and started again."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from presence_ds import cli
from presence_ds.data import open_corpus
from presence_ds.trainer.callbacks.throughput import TIMINGS
from presence_ds.trainer.checkpoint.manifest import complete_checkpoints
from tests.ranks import free_port
from tests.trainer.conftest import presence_train, read_metrics, read_scores, write_recipe

Environment = dict[str, str]
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def whole_run(environment: Environment, corpus_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 steps without interruption; wandb fails (online without a key) and must not matter."""
    work = tmp_path_factory.mktemp("whole")
    recipe = write_recipe(work / "tiny.yaml", corpus_file)
    wandb = ["--wandb.enabled", "true", "--wandb.mode", "online"]
    finished = presence_train(recipe, "--run_dir", work / "run", *wandb, environment=environment, cwd=work)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count("wandb is off for the rest of this run") == 1
    return work / "run"


@pytest.fixture(scope="module")
def resumed_run(environment: Environment, corpus_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same 60 steps, killed between checkpoints and resumed from what was saved, by the other command."""
    work = tmp_path_factory.mktemp("resumed")
    recipe = write_recipe(work / "tiny.yaml", corpus_file)
    run_dir = work / "run"
    command = [
        sys.executable,
        "-m",
        "presence_ds",
        "train",
        str(recipe),
        "--run_dir",
        str(run_dir),
        "--num_processes",
        "2",
    ]
    killed = subprocess.Popen(
        command, env=environment, cwd=work, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while killed.poll() is None and not ((run_dir / "metrics.jsonl").is_file() and len(read_lines(run_dir)) >= 5):
        time.sleep(0.02)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert 25 <= json.loads(read_lines(run_dir)[-1])["step"] < 60
    assert not (run_dir / "summary.json").exists()
    with open(run_dir / "metrics.jsonl", "a") as file:
        file.write('{"step": 3')  # the line that a crash may leave
    deepspeed = [sys.executable, "-m", "deepspeed.launcher.runner", "--num_accelerators", "2"]
    finished = subprocess.run(
        [
            *deepspeed,
            "--master_port",
            str(free_port()),
            "--module",
            "presence_ds",
            "train",
            str(run_dir / "recipe.yaml"),
        ],
        env=environment,
        cwd=work,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert finished.returncode == 0, finished.stderr
    assert "20 done of 60" in finished.stdout or "40 done of 60" in finished.stdout
    return run_dir


def read_lines(run_dir: Path) -> list[str]:
    return [line for line in (run_dir / "metrics.jsonl").read_text().split("\n")[:-1] if line]


def test_a_killed_and_resumed_run_equals_an_uninterrupted_one(whole_run: Path, resumed_run: Path) -> None:
    """Loss, weights, gradient norm, learning rate and validation loss of every logged step, with dropout on."""
    runs = []
    for run_dir in (whole_run, resumed_run):
        lines = read_metrics(run_dir)
        runs.append([{name: value for name, value in line.items() if name not in TIMINGS} for line in lines])
    assert [line["step"] for line in runs[0]] == list(range(5, 61, 5))
    assert runs[1] == runs[0]


def test_a_resumed_run_has_every_score_record_once(whole_run: Path, resumed_run: Path) -> None:
    whole = read_scores(whole_run)
    assert len(whole) == 60 * 2 * 2 * 4
    assert read_scores(resumed_run) == whole


def test_every_score_record_names_its_sample_in_the_corpus(whole_run: Path) -> None:
    corpus = open_corpus(whole_run / "corpus")
    rows = corpus.train.rows.select_columns(["source_id", "document_id", "offset"]).to_list()
    samples = {(corpus.source_names[row["source_id"]], row["document_id"], row["offset"]) for row in rows}
    assert len(samples) == len(rows)
    assert {(row["source"], row["document_id"], row["offset"]) for row in read_scores(whole_run)} <= samples


def test_a_resumed_run_has_the_same_summary(whole_run: Path, resumed_run: Path) -> None:
    stages = [json.loads((run_dir / "summary.json").read_text())["stages"] for run_dir in (whole_run, resumed_run)]
    assert stages[1] == stages[0]
    assert stages[0]["direct"]["steps"] == stages[0]["inverse"]["steps"] == 30


def test_a_run_is_exported_with_its_tokenizer(whole_run: Path, tmp_path: Path) -> None:
    """What is written is a model of transformers as good as the run says its own is."""
    cli.main(["export", str(whole_run), str(tmp_path / "model")])
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    corpus = open_corpus(whole_run / "corpus")
    assert len(AutoTokenizer.from_pretrained(tmp_path / "model")) == len(corpus.tokenizer)
    ids = torch.stack([corpus.validation[index]["input_ids"] for index in range(len(corpus.validation))])
    with torch.no_grad():
        loss = model(input_ids=ids, labels=ids).loss.item()
    assert loss == pytest.approx(read_metrics(whole_run)[-1]["validation/loss"], rel=0.05)
    assert loss < 5  # ln 320 = 5.8 at the start


def test_old_checkpoints_are_deleted_and_latest_points_to_a_complete_one(whole_run: Path) -> None:
    names = [checkpoint.name for checkpoint in complete_checkpoints(whole_run / "checkpoints")]
    assert names == ["step_00000040", "step_00000060"]
    assert (whole_run / "checkpoints" / "latest").read_text() == names[-1]


def test_errors_found_on_rank_0_end_every_rank_with_one_line(
    whole_run: Path, environment: Environment, tmp_path: Path
) -> None:
    """A finished run is only seen on the ranks: one line in all, status 1, and nobody is left waiting."""
    before = (whole_run / "metrics.jsonl").read_text()
    finished = presence_train(whole_run / "recipe.yaml", environment=environment, cwd=tmp_path)
    assert finished.returncode == 1
    lines = [line for line in finished.stderr.splitlines() if line.startswith("presence: error:")]
    assert len(lines) == 1
    assert "run_dir is" in lines[0]
    assert "has finished its 60 steps" in lines[0]
    assert "Traceback" not in finished.stderr + finished.stdout
    assert (whole_run / "metrics.jsonl").read_text() == before
