"""Runs on streamed text: the same through the launcher with workers, stopped and resumed, and on one rank."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
import torch
import yaml

from presence_ds import cli
from tests.data.sources.hub_server import Dataset, HubServer
from tests.ranks import Ranks
from tests.trainer import pool_runs
from tests.trainer.checkpoint.test_ranks import SAME_BATCH, STILL, samples
from tests.trainer.conftest import WORDS, presence_train, read_metrics, read_scores
from tests.trainer.recipe.test_bad_recipes import fails_with_one_line
from tests.trainer.test_stopping import arguments, untimed


@pytest.mark.long
def test_a_run_is_the_same_with_workers_and_resumed(
    two_ranks: Ranks, one_rank: Ranks, streaming_recipe: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    """To the bit; and the rest of it on one rank has the same samples in every step."""
    whole, run_dir, alone = tmp_path / "whole", tmp_path / "run", tmp_path / "alone"
    options = arguments(streaming_recipe, whole, *SAME_BATCH, *STILL, "--training.steps", "8")
    finished = presence_train(*options, "--data.num_workers", "2", environment=environment, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert "dev" in finished.stdout
    assert "TOKENIZERS_PARALLELISM" not in finished.stderr
    options[options.index(str(whole))] = str(run_dir)
    stopped = two_ranks.run(pool_runs.train, options, ("signal", 3, 1, "SIGTERM"))
    assert [part["status"] for part in stopped] == [75, 75]
    assert [lanes_in(file) for file in sorted(run_dir.glob("checkpoints/*/trainer_rank_*.pt"))] == [[0, 2], [1, 3]]
    shutil.copytree(run_dir, alone)
    parts = two_ranks.run(pool_runs.train, [str(run_dir / "recipe.yaml")])
    assert parts[0]["status"] == 0, parts[0]["message"]
    assert untimed(run_dir) == untimed(whole)
    assert read_scores(run_dir) == read_scores(whole)
    assert {row["source"] for row in read_scores(whole)} == {"lines", "more"}
    assert read_metrics(whole)[-1]["validation/loss"] is not None
    assert {"source/lines/epoch", "source/more/epoch"} <= set(read_metrics(whole)[-1])
    (part,) = one_rank.run(pool_runs.train, [str(run_dir / "recipe.yaml"), "--run_dir", str(alone)])
    assert part["status"] == 0, part["message"]
    assert samples(alone) == samples(whole)
    for ours, theirs in zip(part["parameters"], parts[0]["parameters"], strict=True):
        assert torch.allclose(ours, theirs, atol=1e-3)


def lanes_in(file: Path) -> list[int]:
    return list(torch.load(file, weights_only=True)["trainer"]["batches"]["lanes"])


def test_a_dataset_of_the_hub_is_read_at_its_commit(
    streaming_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over the network, on two ranks; stopped and resumed to the bit, although the branch was emptied meanwhile."""
    recipe = yaml.safe_load(streaming_recipe.read_text())
    more = recipe["data"]["sources"][1]
    recipe["data"]["sources"][1] = more | {"path": "me/more", "format": "hub"}
    streaming_recipe.write_text(yaml.safe_dump(recipe))
    whole, run_dir = tmp_path / "whole", tmp_path / "run"
    server = HubServer()
    dataset = server.datasets["me/more"] = Dataset()
    first = dataset.commit({"train.jsonl.gz": (tmp_path / "more.jsonl.gz").read_bytes()})
    hub = {"HF_ENDPOINT": server.endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hub")}
    for name, value in hub.items():  # which the client libraries read when they are imported
        monkeypatch.setenv(name, value)
    ranks = Ranks(2, imports_anew=True)
    try:
        options = arguments(streaming_recipe, run_dir, "--training.steps", "8")
        for incidents, status in (([("signal", 3, 1, "SIGTERM")], 75), ([], 0)):
            parts = ranks.run(pool_runs.train, options, *incidents)
            assert [part["status"] for part in parts] == [status, status], parts[0]["message"]
            dataset.commit({"README.md": b"moved away"})
        dataset.branches["main"] = first
        options[options.index(str(run_dir))] = str(whole)
        assert [part["status"] for part in ranks.run(pool_runs.train, options)] == [0, 0]
    finally:
        ranks.close()
        server.shutdown()
        server.server_close()
    assert json.loads((run_dir / "hub_commits.json").read_text()) == {"me/more@main": first}
    assert yaml.safe_load((run_dir / "recipe.yaml").read_text())["data"]["sources"][1]["revision"] == first
    assert untimed(run_dir) == untimed(whole)
    assert read_scores(run_dir) == read_scores(whole)
    assert {row["source"] for row in read_scores(whole)} == {"lines", "more"}


def test_a_fault_in_the_text_ends_the_run_on_every_rank(
    two_ranks: Ranks, streaming_recipe: Path, tmp_path: Path
) -> None:
    """Met before the first step, or by the rank that has the last lane in the middle of the run."""
    path = tmp_path / "more.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-30])
    early = two_ranks.run(pool_runs.train, arguments(streaming_recipe, tmp_path / "early"))
    assert "more.jsonl.gz cannot be read as a file: it ends in the middle" in early[0]["message"]
    assert not (tmp_path / "early" / "metrics.jsonl").exists()
    sink = pa.BufferOutputStream()
    table = pa.table({"text": [f"{number} {' '.join(WORDS[number % 5 :])}" for number in range(280)]})
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=10)
    (tmp_path / "cut.arrow").write_bytes(sink.getvalue().to_pybytes()[:-8])
    source = f"--data.sources=[{{name: cut, path: {tmp_path / 'cut.arrow'}}}]"
    late = two_ranks.run(pool_runs.train, arguments(streaming_recipe, tmp_path / "late", source))
    assert "cut.arrow cannot be read as an arrow file: it ends without" in late[0]["message"]
    assert read_metrics(tmp_path / "late")[-1]["step"] >= 4
    for parts in (early, late):
        assert [part["status"] for part in parts] == [1, 1]
        assert parts[0]["message"] == parts[1]["message"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data.streaming.lanes", "1"], "data.streaming.lanes is 1: it must be at least the number of ranks, 2"),
        (["--data.streaming.lanes", "0"], "data.streaming.lanes is 0: it must be at least 1"),
        (
            ["--presence.signal=alignment", "--presence.strategy=two_pass", "--reference.sources=[lines]"],
            "reference.sources is set with data.streaming",
        ),
        (["--data.validation_sources", "null"], "data.validation_fraction is 0.1 with data.streaming"),
    ],
)
def test_bad_recipes(
    options: list[str], message: str, streaming_recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in fails_with_one_line([str(streaming_recipe), "--num_processes", "2", *options], capsys)


def test_other_commands(streaming_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["estimate", str(streaming_recipe), "--ranks", "2"])
    assert "512 on 2 ranks" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.main(["prepare", str(streaming_recipe), str(tmp_path / "corpus")])
    assert "data.streaming is set: leave it out" in capsys.readouterr().err
