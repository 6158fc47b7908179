"""A whole run in a locale that is not UTF-8, with names that are not ASCII wherever a user can put them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.trainer.conftest import read_metrics, read_scores, write_recipe

OTHER_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "latin-1"}


@pytest.mark.long
def test_run_in_another_locale(corpus_file: Path, environment: dict[str, str], tmp_path: Path) -> None:
    rows = [json.loads(line) for line in corpus_file.read_text(encoding="utf-8").splitlines()[:120]]
    lines = [json.dumps({"text": f"Größe, naïve, 日本 {row['text']}"}, ensure_ascii=False) + "\n" for row in rows]
    texts = tmp_path / "données"
    texts.mkdir()
    (texts / "été.jsonl").write_text("".join(lines[:60]), encoding="utf-8")
    with open(os.fsencode(texts) + b"/caf\xe9.jsonl", "wb") as file:
        file.write("".join(lines[60:]).encode())
    recipe = write_recipe(tmp_path / "rezept ü.yaml", corpus_file)
    values = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    values["data"]["sources"] = [{"name": "Größe", "path": str(texts)}]
    values |= {"training": {"steps": 2, "micro_batch_size": 2, "precision": "fp32"}, "run_dir": str(tmp_path / "läufe")}
    values |= {"logging": {"every_steps": 1}, "health": {"enabled": False}, "stop": {"stop_file": "schluß"}}
    recipe.write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "presence_ds", "train", recipe, "--num_processes", "1", "--wandb.name", "née"],
        env=environment | OTHER_LOCALE,
        cwd=tmp_path,
        capture_output=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    shown = done.stdout.decode(errors="surrogateescape")
    assert f"run directory: {tmp_path}/läufe" in shown
    assert "Größe" in shown
    run_dir = tmp_path / "läufe"
    assert "source/Größe/loss" in read_metrics(run_dir)[-1]
    scores = read_scores(run_dir)
    assert {row["source"] for row in scores} == {"Größe"}
    assert {str(row["document_id"]).partition(":")[0] for row in scores} == {"été.jsonl", "caf\\xe9.jsonl"}
    resolved = yaml.safe_load((run_dir / "recipe.yaml").read_text(encoding="utf-8"))
    assert (resolved["data"]["sources"][0]["path"], resolved["wandb"]["name"]) == (str(texts), "née")
    report = json.loads((run_dir / "corpus" / "corpus.json").read_text(encoding="utf-8"))["report"]
    assert report["train"]["Größe"]["documents"] + report["validation"]["Größe"]["documents"] == 120


def test_interpreter_that_may_not_use_utf8_is_refused(environment: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "utf8=0", "-m", "presence_ds", "train", "recipe.yaml"],
        env=environment | OTHER_LOCALE,
        cwd=tmp_path,
        capture_output=True,
        timeout=300,
    )
    assert done.returncode == 1
    assert done.stderr.endswith(b"presence: error: Python was started with -E, -I or -X utf8=0: leave that out\n")
