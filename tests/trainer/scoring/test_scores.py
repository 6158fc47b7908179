"""Scores do not depend on how they were made, and are those of one sample at a time in float64."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from presence_ds import cli
from presence_ds.data import PackedDataset, open_corpus
from presence_ds.errors import DataError
from presence_ds.trainer.checkpoint.manifest import complete_checkpoints
from presence_ds.trainer.scores.layout import open_scores
from tests.conftest import Pools
from tests.trainer.checkpoint import runs
from tests.trainer.conftest import write_recipe
from tests.trainer.scoring.conftest import REFERENCE, Score
from tests.trainer.scoring.runs import read
from tests.trainer.test_span_corruption import T5

PLAIN = ["--presence.projection_dim", "4"]
PACKED = range(400, 450)  # rows of more than one document, of which a file is made
APART = ("--data.document_mask", "true", "--shard", "8/15")


@pytest.fixture(scope="module")
def whole(score: Score, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All rows at once, by the last checkpoint, beside a reference."""
    folder = tmp_path_factory.mktemp("whole") / "scores"
    assert score(folder, "--checkpoint", trained, *REFERENCE) is None
    return folder


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last checkpoint as a model in a folder."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    cli.main(["export", str(trained), str(folder)])
    return folder


def loss_of(model: torch.nn.Module, sample: Any) -> torch.Tensor:
    """Mean cross-entropy of one sample, without its padding."""
    ids = sample["input_ids"][sample["attention_mask"].bool()][None]
    return F.cross_entropy(model(input_ids=ids).logits[0, :-1], ids[0, 1:])


def gradient(model: torch.nn.Module, loss: torch.Tensor) -> torch.Tensor:
    """[parameters]"""
    return torch.cat([grad.flatten() for grad in torch.autograd.grad(loss, list(model.parameters()))])


def close(ours: pa.Table, theirs: pa.Table) -> None:
    """The same rows, and the same scores but for rounding."""
    for name in theirs.column_names:
        left, right = ours[name].to_numpy(), theirs[name].to_numpy()
        if left.dtype.kind == "f":
            np.testing.assert_allclose(left, right, rtol=2e-4, atol=1e-6)
        else:
            assert (left == right).all(), name


def test_what_is_written(whole: Path, trained: Path, dataset: PackedDataset, scoring_recipe: Path) -> None:
    manifest = json.loads((whole / "scores.json").read_text())
    corpus = scoring_recipe.parent / "corpus"
    digest = json.loads((corpus / "corpus.json").read_text())["digest"]
    assert manifest["corpus"] == {"path": str(corpus), "digest": digest, "rows": len(dataset)}
    checkpoint = complete_checkpoints(trained / "checkpoints")[-1]
    (told,) = manifest["checkpoints"]
    assert [told["name"], told["path"], told["step"]] == ["step_00000006", str(checkpoint), 6]
    assert sorted(path.name for path in whole.iterdir() if path.suffix == ".parquet") == [
        f"rows-{start:012d}.parquet" for start in range(0, len(dataset), 50)
    ]
    table = read(whole)
    assert table["row"].to_pylist() == list(range(len(dataset)))
    for row, (sample, source) in enumerate(zip(dataset, table["source"].to_pylist(), strict=True)):
        assert source == ["lines", "shuffled"][sample["source_ids"]]
        assert table["document_id"][row].as_py() == sample["document_ids"]
        assert table["offset"][row].as_py() == sample["offsets"]
        assert table["targets"][row].as_py() == (sample["labels"][1:] >= 0).sum()
    assert table["has_targets"].to_pylist() == [count > 0 for count in table["targets"].to_pylist()]


@pytest.mark.parametrize("how", [{"ranks": 2}, {"ranks": 2, "stage": 3}], ids=["two ranks", "ZeRO-3"])
def test_ranks_and_partitions_change_nothing(
    how: dict[str, int], whole: Path, score: Score, trained: Path, tmp_path: Path
) -> None:
    """Stopped by a signal in the middle, and half of a file by a kill; to the bit."""
    options = ["--checkpoint", trained, *REFERENCE]
    assert "stopped by SIGTERM" in score(tmp_path / "scores", *options, stop_at=3, **how)
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "scores").glob("rows-*.parquet")}
    assert len(before) in (3, 4)
    assert "killed" in score(tmp_path / "scores", *options, dies_at=2, **how)
    assert score(tmp_path / "scores", *options, **how) is None
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert read(tmp_path / "scores").equals(read(whole))


def test_what_a_stop_and_a_kill_leave_within_a_file_stays(
    whole: Path, score: Score, trained: Path, tmp_path: Path
) -> None:
    """Neither is waited for the end of a file, and nothing is scored twice; to the bit."""
    options = ["--checkpoint", trained, *REFERENCE, "--shard", "0/5"]  # files of the rows from 0, 250 and 500 on
    folder = tmp_path / "scores"

    def parts() -> list[str]:
        return sorted(path.name for path in folder.glob("parts/*/rows-*.parquet"))

    assert "what is scored stays" in score(folder, *options, stop_at=1)
    assert parts() == ["rows-000000000250-000000000254.parquet"]
    assert "killed" in score(folder, *options, dies_at=3, saves=0)
    assert parts()[1:] == [f"rows-000000000{first}-000000000{first + 4}.parquet" for first in (254, 258, 262)]
    assert score(folder, *options, ranks=2) is None
    assert not parts()
    rows = read(folder)["row"].to_numpy()
    assert rows.tolist() == [*range(50), *range(250, 300), *range(500, 550)]
    assert read(folder).equals(read(whole).take(rows))


def test_shards_and_batches_change_nothing(whole: Path, score: Score, trained: Path, tmp_path: Path) -> None:
    """Two of three shards, then two of two; the rest in batches that do not divide a file."""
    options = ["--checkpoint", trained, *REFERENCE]
    for shard in ("2/3", "0/3"):
        assert score(tmp_path / "scores", *options, "--shard", shard) is None
    assert not (tmp_path / "scores" / "rows-000000000050.parquet").exists()
    for shard in ("1/2", "0/2"):
        assert (
            score(tmp_path / "scores", *options, "--shard", shard, "--training.micro_batch_size", "7", ranks=2) is None
        )
    close(read(tmp_path / "scores"), read(whole))


def test_the_exact_estimator_is_one_sample_at_a_time(
    score: Score, trained: Path, exported: Path, dataset: PackedDataset, tmp_path: Path
) -> None:
    options = ["--presence.estimator", "exact", "--checkpoint", trained, *REFERENCE]
    assert score(tmp_path / "scores", *options) is None
    table = read(tmp_path / "scores")
    model = AutoModelForCausalLM.from_pretrained(exported).double().eval()
    rows = [0, 77, 539, 540, 700, len(dataset) - 1]
    losses = [loss_of(model, dataset[row]) for row in rows]
    grads = torch.stack([gradient(model, loss) for loss in losses])
    taken = table.take(rows)
    np.testing.assert_allclose(taken["loss"].to_numpy(), torch.stack(losses).detach(), rtol=1e-5)
    np.testing.assert_allclose(taken["self_influence"].to_numpy(), grads.square().sum(1), rtol=1e-3)
    trusted = [sample for sample in dataset if sample["source_ids"] == 0]
    ids, labels = (torch.stack([sample[name] for sample in trusted]) for name in ("input_ids", "labels"))
    by_token = F.cross_entropy(model(input_ids=ids).logits[:, :-1].mT, labels[:, 1:], reduction="none")
    reference = gradient(model, (by_token.sum(1) / (labels[:, 1:] >= 0).sum(1)).mean())
    np.testing.assert_allclose(taken["reference_alignment"].to_numpy(), grads @ reference, rtol=1e-3, atol=1e-4)


def test_scores_are_summed_over_checkpoints(score: Score, trained: Path, tmp_path: Path) -> None:
    """Ended after every second file; a part is never read as a whole."""
    checkpoints = complete_checkpoints(trained / "checkpoints")[:2]
    named = [option for path in checkpoints for option in ("--checkpoint", path)]
    for _ in range(3):
        assert "killed" in score(tmp_path / "both", *named, dies_at=7)
        left = sorted((tmp_path / "both").glob("rows-*.parquet"))
    assert len(left) == 6
    assert score(tmp_path / "both", *named, ranks=2, stage=3) is None
    assert not (tmp_path / "both" / "parts").exists()
    both, total, last = read(tmp_path / "both"), 0.0, None
    for path in checkpoints:
        assert score(tmp_path / path.name, "--checkpoint", path) is None
        last = read(tmp_path / path.name)
        for name in ("self_influence", "loss"):
            assert both[f"{name}_{path.name}"].equals(last[name])
        total = total + last["self_influence"].to_numpy().astype(np.float64)
    assert last is not None
    assert (both["self_influence"].to_numpy() == total.astype(np.float32)).all()
    assert both["loss"].equals(last["loss"])
    assert not np.array_equal(both[f"loss_{checkpoints[0].name}"].to_numpy(), both["loss"].to_numpy())


def test_a_model_in_a_folder(whole: Path, score: Score, trained: Path, tmp_path: Path) -> None:
    """The same weights by another way, moved meanwhile, and the loss alone."""
    cli.main(["export", str(trained), str(tmp_path / "model")])
    loss = ("--presence.signal", "loss")
    assert "stopped" in score(tmp_path / "scores", "--model", tmp_path / "model", *loss, stop_at=1)
    (tmp_path / "model").rename(tmp_path / "moved")
    assert score(tmp_path / "scores", "--model", tmp_path / "moved", *loss) is None
    table = read(tmp_path / "scores")
    assert table["self_influence"].null_count == len(table)
    assert table["reference_alignment"].null_count == len(table)
    assert table["loss"].equals(read(whole)["loss"])


@pytest.fixture(scope="module")
def pieces(exported: Path, scoring_recipe: Path) -> list[Any]:
    """Of every document in the rows `PACKED`: row, number in it, id, offset, targets, summed loss, squared gradient."""
    model = AutoModelForCausalLM.from_pretrained(exported).double().eval()
    found: list[Any] = []
    dataset = open_corpus(scoring_recipe.parent / "corpus", document_mask=True).train
    for row in PACKED:
        sample, begin = dataset[row], 0
        for number, (document_id, offset, length) in enumerate(sample["pieces"]):
            ids = sample["input_ids"][begin : begin + length][None]
            begin += length
            loss = F.cross_entropy(model(input_ids=ids).logits[0, :-1], ids[0, 1:], reduction="sum")
            norm = gradient(model, loss).square().sum() / max(length - 1, 1) ** 2
            found.append((row, number, document_id, offset, length - 1, loss.item(), norm.item()))
    return found


def test_documents_of_a_row_do_not_see_each_other(
    score: Score, exported: Path, pieces: list[Any], tmp_path: Path
) -> None:
    """The loss of a row is that of each of its documents alone."""
    options = ("--model", exported, "--presence.signal", "loss")
    assert score(tmp_path / "scores", *options, *APART) is None
    assert json.loads((tmp_path / "scores" / "scores.json").read_text())["settings"]["document_mask"] is True
    table = read(tmp_path / "scores")
    rows, _, _, _, counts, totals, _ = map(np.array, zip(*pieces, strict=True))
    targets = np.bincount(rows - PACKED.start, weights=counts)
    assert table["row"].to_pylist() == list(PACKED)
    assert table["targets"].to_pylist() == targets.tolist()
    expected = np.bincount(rows - PACKED.start, weights=totals) / targets
    np.testing.assert_allclose(table["loss"].to_numpy(), expected, rtol=1e-5)
    assert "made with settings.document_mask true" in score(tmp_path / "scores", *options)


def test_documents_are_scored_by_themselves(score: Score, exported: Path, pieces: list[Any], tmp_path: Path) -> None:
    """A record of each, exact, stopped within a file and gone on with on two ranks; nobody takes them for rows."""
    options = ["--model", exported, *APART, "--presence.granularity", "document", "--presence.estimator", "exact"]
    assert "killed" in score(tmp_path / "scores", *options, dies_at=9, saves=0)
    assert score(tmp_path / "scores", *options, ranks=2, stage=3) is None
    table = read(tmp_path / "scores")
    assert len(table) == len(pieces) == 100
    columns: Any = zip(*pieces, strict=True)
    for name, values in zip(("row", "piece", "document_id", "offset", "targets"), columns, strict=False):
        assert table[name].to_pylist() == list(values), name
    losses, scores = (np.array(values) for values in list(zip(*pieces, strict=True))[5:])
    counts = np.maximum(table["targets"].to_numpy(), 1)
    np.testing.assert_allclose(table["loss"].to_numpy(), losses / counts, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(table["self_influence"].to_numpy(), scores, rtol=1e-3, atol=1e-6)
    with pytest.raises(DataError, match="has scores of the documents in each row, and whole rows are needed"):
        open_scores(tmp_path / "scores")


def test_a_corpus_of_the_recipe_is_prepared(
    whole: Path, score: Score, trained: Path, corpus_file: Path, tmp_path: Path
) -> None:
    """In the folder of the scores, which then holds no other."""
    recipe = write_recipe(tmp_path / "own.yaml", corpus_file)
    options = ["--checkpoint", trained, "--data.packing", "best_fit", *PLAIN]
    assert score(tmp_path / "scores", *options, recipe=recipe) is None
    for name in ("row", "document_id", "loss", "self_influence"):
        assert read(tmp_path / "scores")[name].equals(read(whole)[name])
    options += ["--data.validation_fraction", "0.2"]
    assert "holds a corpus that was made otherwise" in score(tmp_path / "scores", *options, recipe=recipe)


def test_streamed_text_is_prepared(pools: Pools, score: Score, corpus_file: Path, tmp_path: Path) -> None:
    """With the tokenizer that the run has trained on the beginning of it."""
    recipe, run_dir = write_recipe(tmp_path / "streamed.yaml", corpus_file), tmp_path / "run"
    options = ["--data.streaming", "{lanes: 2, tokenizer_megabytes: 0.002}", "--data.noise", "null"]
    options += ["--data.validation_fraction", "0"]
    trained = pools.get(1).run(
        runs.train, str(recipe), *options, "--training.steps", "2", "--evaluation.every_steps", "null",
        "--run_dir", str(run_dir),
    )  # fmt: skip
    assert trained == [None]
    assert score(tmp_path / "scores", "--checkpoint", run_dir, *options, recipe=recipe) is None
    corpus = open_corpus(tmp_path / "scores" / "corpus")
    assert corpus.tokenizer.get_vocab() == open_corpus(run_dir / "corpus").tokenizer.get_vocab()
    documents = {json.loads(line)["id"] for line in corpus_file.read_text().splitlines()}
    assert set(read(tmp_path / "scores")["document_id"].to_pylist()) <= documents
    assert len(read(tmp_path / "scores")) == len(corpus.train)


def test_an_encoder_decoder_model(pools: Pools, score: Score, corpus_file: Path, tmp_path: Path) -> None:
    """On two ranks with everything partitioned, as one corrupted sample at a time."""
    recipe, run_dir = write_recipe(tmp_path / "spans.yaml", corpus_file), tmp_path / "run"
    values = yaml.safe_load(recipe.read_text())
    values["model"]["config"] = T5
    values["data"] |= {"objective": {"kind": "span_corruption"}, "tokenizer": {"vocab_size": 380}}
    values["training"] |= {"steps": 2}
    values["evaluation"] = {"every_steps": None}
    recipe.write_text(yaml.safe_dump(values))
    assert pools.get(1).run(runs.train, str(recipe), "--run_dir", str(run_dir)) == [None]
    options = ["--presence.estimator", "exact", "--checkpoint", run_dir]
    assert score(tmp_path / "scores", *options, recipe=recipe, ranks=2, stage=3) is None
    cli.main(["export", str(run_dir), str(tmp_path / "model")])
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "model").double().eval()
    corpus, table = open_corpus(tmp_path / "scores" / "corpus").train, read(tmp_path / "scores")
    for row in (0, 1, len(corpus) - 1):
        loss = model(**{name: corpus[row][name][None] for name in ("input_ids", "labels")}).loss
        assert table["loss"][row].as_py() == pytest.approx(loss.item(), rel=1e-5)
        influence = gradient(model, loss).square().sum().item()
        assert table["self_influence"][row].as_py() == pytest.approx(influence, rel=1e-3)
