"""Tables of rows in which documents are kept apart, and of private text."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from presence_ds.reweighting import MicroBatch, Samples
from presence_ds.trainer.trackers.sample_table import SampleTable
from tests.conftest import Pools
from tests.trainer.checkpoint import runs
from tests.trainer.conftest import read_scores, write_recipe

OPTIONS = [
    *("--training.steps", "2", "--logging.every_steps", "1", "--training.gradient_accumulation_steps", "2"),
    *("--tensorboard.enabled", "true", "--tensorboard.table_every", "1"),
]


def rows_of(run_dir: Path) -> list[dict[str, object]]:
    return [row for text in (run_dir / "tracked.jsonl").read_text().splitlines() for row in json.loads(text)["samples"]]


@pytest.fixture
def recipe(corpus_file: Path, tmp_path: Path) -> str:
    return str(write_recipe(tmp_path / "tiny.yaml", corpus_file))


def test_documents_of_a_row(pools: Pools, recipe: str, corpus_file: Path, tmp_path: Path) -> None:
    """A row of the table is of one document, and has its text alone."""
    more = ["--data.document_mask", "true", "--presence.granularity", "document"]
    assert pools.get(1).run(runs.train, recipe, *OPTIONS, *more, "--run_dir", str(tmp_path / "run")) == [None]
    with open(corpus_file) as file:
        texts = {line["id"]: line["text"] for line in map(json.loads, file)}
    records = {(row["step"], row["document_id"], row["offset"]): row for row in read_scores(tmp_path / "run")}
    rows = rows_of(tmp_path / "run")
    numbers = [sum(step == at for step, _, _ in records) for at in (1, 2)]
    assert len(rows) == sum(2 * min(8, number // 2) for number in numbers)
    for row in rows:
        assert row["loss"] == pytest.approx(records[row["step"], row["document"], row["offset"]]["loss"])
        if row["source"] == "lines":
            text = str(row["text"])
            assert text.removesuffix("<|endoftext|>").strip() in texts[row["document"]]
            begins = texts[row["document"]].startswith(text.removesuffix("<|endoftext|>"))
            assert begins or row["offset"] != 0


def test_private_text_is_nowhere(pools: Pools, recipe: str, tmp_path: Path) -> None:
    more = ["--tensorboard.sample_text", "false", "--run_dir", str(tmp_path / "run")]
    assert pools.get(1).run(runs.train, recipe, *OPTIONS, *more) == [None]
    assert all("text" not in row and row["document"] for row in rows_of(tmp_path / "run"))


def test_hostile_text_is_shown_as_what_it_is(pools: Pools, tmp_path: Path) -> None:
    """Control and bidirectional characters as escapes, in one line; Markdown as code."""
    hostile = "\x1b[31m\u202e`</script><img src=x onerror=alert(1)>`\u2028![](http://x/)\n"
    path = tmp_path / "lines.jsonl"
    lines = [json.dumps({"text": f"{number} {hostile * 3}", "id": f"d\u202e{number}"}) for number in range(200)]
    path.write_text("\n".join(lines) + "\n")
    recipe = write_recipe(tmp_path / "tiny.yaml", path)
    assert pools.get(1).run(runs.train, str(recipe), *OPTIONS, "--run_dir", str(tmp_path / "run")) == [None]
    rows = rows_of(tmp_path / "run")
    for row in rows:
        assert str(row["text"]).isprintable()
        assert str(row["document"]).isprintable()
    assert any("\\x1b[31m\\u202e" in str(row["text"]) for row in rows)

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"), size_guidance={"tensors": 0}).Reload()
    shown = events.Tensors("presence/samples/text_summary")[0].tensor_proto.string_val[0].decode()
    from markdown import markdown

    assert "<img" not in markdown(shown)
    assert "<script" not in markdown(shown)


def test_what_does_not_count_is_in_no_table() -> None:
    """Also where only what samples are compared by is not finite: its weight of 0 is not among the lowest."""
    features = torch.ones(4, 2)
    features[1] = torch.nan
    losses, scores, sources = torch.full((4,), 2.0), torch.ones(4), torch.zeros(4, dtype=torch.int64)
    targets = torch.full((4,), 7)
    micro_batch = MicroBatch(losses=losses, targets=targets, sources=sources, scores=scores, features=features)
    samples = Samples.of_rows(micro_batch.rows(), "scores")
    weights = torch.tensor([0.5, 0.0, 0.2, 0.3], dtype=torch.float64)
    presence = SimpleNamespace(
        step_samples=samples,
        own_samples=samples,
        step_weights=weights,
        weights=weights.float(),
        by_document=False,
    )
    trainer: Any = SimpleNamespace(
        engine=SimpleNamespace(presence=presence),
        ranks=SimpleNamespace(collect=lambda rows: [rows]),
        source_names=["lines"],
        step=1,
    )
    table = SampleTable(None)
    table.keep({"source_ids": sources, "document_ids": ["a", "b", "c", "d"], "offsets": torch.arange(4)})
    rows = table.collect(trainer)
    assert rows is not None
    assert [(row["document"], row["which"]) for row in rows] == [("a", "highest"), ("c", "lowest")]
