"""A filtered corpus: exactly the rows that the rule keeps, and all the rest of the corpus as it was."""

import filecmp
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from presence_ds.data import NoiseConfig, SourceConfig, fill_from_prepared, mixture_weights, open_corpus
from presence_ds.data.corpus import rows as rows_module
from presence_ds.data.corpus.manifest import check_corpus, read_manifest, write_manifest
from presence_ds.data.corpus.prepared import made_with
from presence_ds.errors import ConfigError, DataError
from presence_ds.trainer.scores.filter import select
from presence_ds.trainer.scores.layout import MANIFEST
from presence_ds.trainer.scores.rule import Rule
from tests.trainer.scores.conftest import PACKINGS
from tests.trainer.scores.folders import random_scores, write_scores


@pytest.fixture
def scored(corpora: dict[str, Path], tmp_path: Path) -> Callable[..., Path]:
    """Scores of the corpus of a packing, random ones unless others are given."""

    def write(packing: str = "best_fit", **columns: Any) -> Path:
        values = {"self_influence": random_scores(corpora[packing]), **columns}
        return write_scores(tmp_path / "scores", corpora[packing], **values)

    return write


def rows_of(corpus: Path) -> list[dict[str, Any]]:
    return list(open_corpus(corpus).train.rows)


@pytest.mark.parametrize("packing", PACKINGS)
def test_it_holds_the_rows_that_are_kept(
    packing: str, corpora: dict[str, Path], scored: Callable[..., Path], tmp_path: Path
) -> None:
    values = random_scores(corpora[packing])
    kept = sorted(np.argsort(values)[: round(0.4 * len(values))].tolist())
    output = tmp_path / "filtered"
    selection = select(Rule(keep=0.4), scored(packing))
    assert selection.write(output)
    before, after = rows_of(corpora[packing]), rows_of(output)
    assert after == [before[row] | {"unfiltered_row": row} for row in kept]
    assert filecmp.cmp(corpora[packing] / "validation.arrow", output / "validation.arrow", shallow=False)
    assert not filecmp.dircmp(corpora[packing] / "tokenizer", output / "tokenizer").diff_files
    manifest, parent = check_corpus(output), check_corpus(corpora[packing])
    filtered = manifest["filtered"]
    origin = {"path": str(corpora[packing]), "digest": parent["digest"], "rows": len(values)}
    assert filtered["from"] == filtered["unfiltered"] == origin
    assert filtered["rule"]["keep"] == 0.4
    assert filtered["scores"]["digest"] == selection.scores.digest()
    assert manifest["fingerprint"] != parent["fingerprint"]
    report = manifest["report"]["train"]
    for number, name in enumerate(manifest["source_names"]):
        own = [row for row in after if row["source_id"] == number]
        assert report[name]["samples"] == len(own)
        assert report[name]["tokens"] == sum(len(row["input_ids"]) for row in own)
    assert not list(tmp_path.glob(".*"))


def test_the_same_again_is_left_as_it_is(scored: Callable[..., Path], tmp_path: Path) -> None:
    folder, output = scored(), tmp_path / "filtered"
    assert select(Rule(keep=50), folder).write(output)
    identity = (output / "corpus.json").stat().st_ino
    moved = folder.rename(tmp_path / "moved")
    assert not select(Rule(keep=50), moved).write(output)
    assert (output / "corpus.json").stat().st_ino == identity
    with pytest.raises(DataError, match="made otherwise: name a new folder"):
        select(Rule(keep=51), moved).write(output)
    assert (output / "corpus.json").stat().st_ino == identity


def test_few_rows_are_written_together(
    corpora: dict[str, Path], scored: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows_module, "BATCH_ROWS", 7)
    stored = rows_module.StoredRows(corpora["best_fit"])
    stored.table = stored.table.combine_chunks()
    rows = np.arange(0, len(stored), 3)
    monkeypatch.setattr(stored, "table", rows_module.pa.Table.from_batches(stored.table.to_batches(max_chunksize=5)))
    stored.write(rows, tmp_path / "train.arrow")
    with rows_module.pa.ipc.open_stream(tmp_path / "train.arrow") as stream:
        batches = list(stream)
    assert {len(batch) for batch in batches[:-1]} == {7, 8}  # one or two of each batch are left
    found = [row for batch in batches for row in batch["unfiltered_row"].to_pylist()]
    assert found == rows.tolist()


def test_of_a_filtered_corpus(corpora: dict[str, Path], scored: Callable[..., Path], tmp_path: Path) -> None:
    """By the first scores, and by others of what was left; both know the first rows."""
    folder, values = scored(), random_scores(corpora["best_fit"])
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    select(Rule(keep=300), folder).write(first)
    kept = np.sort(np.argsort(values)[:300])
    select(Rule(keep=100, reverse=True), folder, first).write(second)
    expected = np.sort(kept[np.argsort(-values[kept], kind="stable")[:100]])
    assert [row["unfiltered_row"] for row in rows_of(second)] == expected.tolist()
    anew = random_scores(first, seed=5)
    select(Rule(keep=0.5), write_scores(tmp_path / "anew", first, anew)).write(third)
    expected = kept[np.sort(np.argsort(anew)[:150])]
    assert [row["unfiltered_row"] for row in rows_of(third)] == expected.tolist()
    before = rows_of(corpora["best_fit"])
    for row in rows_of(third):
        assert row == before[row["unfiltered_row"]] | {"unfiltered_row": row["unfiltered_row"]}
    filtered = check_corpus(third)["filtered"]
    assert filtered["from"]["digest"] == check_corpus(first)["digest"]
    assert filtered["from"]["filtered"] == check_corpus(first)["filtered"]
    assert filtered["unfiltered"]["digest"] == check_corpus(corpora["best_fit"])["digest"]
    with pytest.raises(DataError, match="scores of another corpus"):
        select(Rule(keep=0.5), tmp_path / "anew", second)


def test_files_of_which_no_row_is_left(corpora: dict[str, Path], scored: Callable[..., Path], tmp_path: Path) -> None:
    folder, values = scored(), random_scores(corpora["best_fit"])
    select(Rule(where='"row" < 60'), folder).write(tmp_path / "few")
    selection = select(Rule(keep=20), folder, tmp_path / "few")
    assert np.flatnonzero(selection.kept).tolist() == sorted(np.argsort(values[:60])[:20].tolist())


def test_whole_numbers_that_no_float_tells_apart(corpora: dict[str, Path], scored: Callable[..., Path]) -> None:
    """They are as equal scores: the first come first."""
    size = len(random_scores(corpora["best_fit"]))
    selection = select(Rule(keep=2, column="targets"), scored(targets=2**24 + np.arange(size) % 2))
    assert np.flatnonzero(selection.kept).tolist() == [0, 1]


def test_quotas_by_source_and_by_language(corpora: dict[str, Path], scored: Callable[..., Path]) -> None:
    """Source c, the only one in German, has the highest scores; noise counts for itself."""
    names = check_corpus(corpora["best_fit"])["source_names"]
    ids = np.array(open_corpus(corpora["best_fit"]).train.rows["source_id"])
    values = random_scores(corpora["best_fit"]) + 1e6 * (ids == names.index("c"))
    folder = scored(self_influence=values)
    sizes = dict(zip(names, np.bincount(ids, minlength=len(names)).tolist(), strict=True))

    def kept(**fields: Any) -> dict[str, int]:
        selection = select(Rule(keep=0.5, **fields), folder)
        left = np.bincount(ids[selection.kept], minlength=len(names)).tolist()
        vanished = [("source", "c", sizes["c"], True), ("language", "de", sizes["c"], True)]
        assert selection.vanished() == (vanished if fields == {} else [])
        return dict(zip(names, left, strict=True))

    assert kept()["c"] == 0
    assert kept(by="source") == {name: round(0.5 * size) for name, size in sizes.items()}
    by_language = kept(by="language")
    assert by_language["a"] + by_language["b"] == round(0.5 * (sizes["a"] + sizes["b"]))
    assert by_language["a"] != round(0.5 * sizes["a"])
    assert by_language["c"] == round(0.5 * sizes["c"])
    assert by_language["shuffled"] == round(0.5 * sizes["shuffled"])


def test_the_recipe_that_was_scored_fits(corpora: dict[str, Path], scored: Callable[..., Path], tmp_path: Path) -> None:
    """Its noise has another share now, and of one source nothing is left, which is told once; it may be left out."""
    corpus, output, again = corpora["best_fit"], tmp_path / "filtered", tmp_path / "again"
    select(Rule(where="source <> 'c' and (source <> 'shuffled' or self_influence < 1)"), scored()).write(output)
    select(Rule(where="source <> 'shuffled'"), tmp_path / "scores", output).write(again)
    recipe = made_with(check_corpus(corpus), "")
    assert [noise.share for noise in recipe.noises] == [0.2]
    for source, weight in zip(recipe.sources, (3.0, 1.0, 5.0), strict=True):
        source.weight = weight
    for folder in (output, again):
        given = replace(recipe, prepared=str(folder))
        told = fill_from_prepared(given)
        assert told == (f"data.prepared {folder} has no sample left of c: it goes on without",)
        assert fill_from_prepared(given) == ()
        given.validate()
        assert [(source.name, source.weight) for source in given.sources] == [("a", 3.0), ("b", 1.0)]
        without = replace(recipe, prepared=str(folder), sources=recipe.sources[:2], noise=None)
        assert fill_from_prepared(without) == ()
        assert without == given
        names, rows = check_corpus(folder)["source_names"], rows_of(folder)
        share = sum(names[row["source_id"]] == "shuffled" for row in rows) / len(rows)
        weights = mixture_weights(given.sources, open_corpus(folder).noise_shares)
        assert weights == pytest.approx({"a": 3.0, "b": 1.0} | ({"shuffled": 4 * share / (1 - share)} if share else {}))
    assert mixture_weights(recipe.sources, open_corpus(corpus).noise_shares)["shuffled"] == pytest.approx(9 * 0.25)
    for fields, words in (
        ({"noise": [NoiseConfig(share=0.1)]}, "data.noise is"),
        ({"sources": recipe.sources[1:]}, 'data.sources leaves out "a"'),
        ({"sources": [*recipe.sources, SourceConfig("d")]}, "it must be one of ['a', 'b']"),
    ):
        with pytest.raises(ConfigError) as caught:
            fill_from_prepared(replace(recipe, prepared=str(output), **fields))
        assert words in str(caught.value)


def test_languages_that_are_not_stated(corpora: dict[str, Path], tmp_path: Path) -> None:
    """Such as those of a corpus that was prepared before they could be."""
    corpus = tmp_path / "corpus"
    shutil.copytree(corpora["best_fit"], corpus)
    manifest = read_manifest(corpus)
    assert manifest is not None
    for source in manifest["config"]["sources"]:
        del source["language"]
    write_manifest(corpus, manifest)
    folder = write_scores(tmp_path / "scores", corpus, random_scores(corpus))
    assert select(Rule(keep=0.5), folder).kept.any()
    with pytest.raises(ConfigError, match='does not say which source "a" is of'):
        select(Rule(keep=0.5, by="language"), folder)


def test_samples_without_a_score_go_first(scored: Callable[..., Path], corpora: dict[str, Path]) -> None:
    """In both directions; a condition that asks for no score keeps them."""
    values = random_scores(corpora["best_fit"])
    has_targets = np.ones(len(values), bool)
    values[[3, 4]], has_targets[5] = [np.nan, np.inf], False
    values[5] = 0.0
    folder = scored(self_influence=values, has_targets=has_targets)
    for reverse in (False, True):
        selection = select(Rule(keep=len(values) - 3, reverse=reverse), folder)
        assert np.flatnonzero(~selection.kept).tolist() == [3, 4, 5]
    assert select(Rule(where='"row" < 10'), folder).kept.sum() == 10


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (Rule(where="loss > 100"), "nothing would be left of"),
        (Rule(where="loss < 100"), "would be kept: nothing is written"),
        (Rule(max_per_document=1000), "would be kept: nothing is written"),
        (Rule(keep=10**6), "keep is 1000000: there are only"),
        (Rule(keep=3, by="source"), "keep is 3: it must be at least 4"),
        (Rule(where="source = 'shuffled'"), "only noise would be left (shuffled)"),
        (Rule(dropped_sources=("a", "b", "c")), "only noise would be left (shuffled)"),
        (Rule(dropped_sources=("x",)), "has none of them, but a, b, c, shuffled"),
        (Rule(keep=0.5, column="reference_alignment"), "column is reference_alignment"),
        (Rule(keep=0.5, column="document_id"), "is of type string"),
        (Rule(keep=0.5, column="lss"), "has no column lss"),
    ],
)
def test_what_would_be_no_corpus(rule: Rule, words: str, scored: Callable[..., Path]) -> None:
    with pytest.raises((ConfigError, DataError)) as caught:
        select(rule, scored())
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_scores_of_another_corpus(corpora: dict[str, Path], scored: Callable[..., Path], tmp_path: Path) -> None:
    folder = scored()
    with pytest.raises(DataError, match="scores of another corpus"):
        select(Rule(keep=0.5), folder, corpora["concat"])
    short = write_scores(tmp_path / "short", corpora["best_fit"], random_scores(corpora["best_fit"]))
    manifest = json.loads((short / MANIFEST).read_text())
    last = max(short.glob("*.parquet"))
    manifest["corpus"]["rows"] -= pq.read_metadata(last).num_rows
    last.unlink()
    (short / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"scores of another corpus than .* \(\d+ rows"):
        select(Rule(keep=0.5), short)
    other = scored_as(folder, tmp_path / "other", corpora["concat"])
    with pytest.raises(DataError, match=r"has scores of another corpus: its row \d+ is of"):
        select(Rule(keep=0.5), other)


def scored_as(folder: Path, copy: Path, corpus: Path) -> Path:
    """The scores in ``folder``, said to be of ``corpus``; rows that it has not left out."""
    size = len(open_corpus(corpus).train)
    write_scores(copy, corpus, np.zeros(size, np.float32))
    for file in folder.glob("*.parquet"):
        if (copy / file.name).exists() and int(file.name[5:-8]) + 64 <= size:
            shutil.copy(file, copy)
    return copy


def test_nothing_is_lost_or_half_written(
    scored: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, output = scored(), tmp_path / "filtered"
    selection = select(Rule(keep=0.5), folder)
    output.mkdir()
    (output / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"holds notes\.txt"):
        selection.write(output)
    assert (output / "notes.txt").read_text() == "mine"
    shutil.rmtree(output)
    output.write_text("mine")
    with pytest.raises(DataError, match="is a file"):
        selection.write(output)
    output.unlink()

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full_disk)
        with pytest.raises(OSError, match="No space"):
            selection.write(output)
    assert {path.name for path in tmp_path.iterdir()} == {"scores"}
    corpus = selection.corpus
    with pytest.raises(DataError, match="is the corpus that is filtered"):
        selection.write(corpus)
    manifest = json.loads((folder / MANIFEST).read_text())
    assert check_corpus(corpus)["digest"] == manifest["corpus"]["digest"]
