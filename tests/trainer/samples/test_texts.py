"""The text of a recorded sample is what the corpus has at that place."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from presence_ds.data import open_corpus
from presence_ds.errors import ConfigError, DataError
from presence_ds.trainer.samples.texts import Sample, SampleTexts
from tests.ranks import Ranks
from tests.trainer import pool_runs
from tests.trainer.conftest import read_scores
from tests.trainer.scores.conftest import PACKINGS

ALL = 10_000  # characters
Documents = dict[tuple[str, str], str]


def stored(corpus: Path, *, by_document: bool) -> dict[Sample, list[int]]:
    """The tokens of every row, or piece."""
    opened, found = open_corpus(corpus), {}
    for row in opened.train.rows:
        start, whole = 0, {"document_id": row["document_id"], "offset": row["offset"], "length": len(row["input_ids"])}
        for piece in row.get("pieces", [whole]) if by_document else [whole]:
            sample = Sample(opened.source_names[row["source_id"]], piece["document_id"], piece["offset"])
            found.setdefault(sample, row["input_ids"][start : start + piece["length"]])
            start += piece["length"]
    return found


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("by_document", [False, True])
def test_it_is_what_the_row_has(packing: str, by_document: bool, corpora: dict[str, Path]) -> None:
    """Of all samples at once, noise among them, but for the end of a document."""
    tokens = stored(corpora[packing], by_document=by_document)
    tokenizer = open_corpus(corpora[packing]).tokenizer
    asked = sorted(tokens, reverse=True)
    found = SampleTexts(corpora[packing], by_document=by_document).find(asked, ALL)
    for sample, text in zip(asked, found, strict=True):
        assert text == tokenizer.decode(tokens[sample]).removesuffix(tokenizer.eos_token)
    assert {sample.source for sample in asked} == {"a", "b", "c", "shuffled"}
    assert any(sample.offset > 0 for sample in asked) or packing == "best_fit"


def test_pieces_are_parts_of_their_documents(corpora: dict[str, Path], documents: Documents) -> None:
    """And rows of several go on from one to the next."""
    pieces = [one for one in stored(corpora["concat"], by_document=True) if one.source != "shuffled"]
    for sample, text in zip(pieces, SampleTexts(corpora["concat"], by_document=True).find(pieces, ALL), strict=True):
        assert text is not None
        assert text in documents[sample.source, sample.document_id]
        assert documents[sample.source, sample.document_id].startswith(text) or sample.offset > 0
    rows = list(stored(corpora["concat"], by_document=False))
    texts = SampleTexts(corpora["concat"]).find(rows, ALL)
    assert any("<|endoftext|>" in text for text in texts if text is not None)


def test_noise_has_the_text_of_noise(corpora: dict[str, Path], documents: Documents) -> None:
    """A copy keeps the id of its original, so that the source tells them apart."""
    known = stored(corpora["document"], by_document=False)
    noise = next(one for one in known if one.source == "shuffled" and one.offset == 0 and one.document_id[0] == "a")
    copy, original = SampleTexts(corpora["document"]).find([noise, noise._replace(source="a")], 60)
    assert original is not None
    assert copy is not None
    assert documents["a", noise.document_id].startswith(original[:-1])
    assert copy != original


def test_as_many_characters_as_are_asked_for(corpora: dict[str, Path], documents: Documents) -> None:
    sample = next(one for one in stored(corpora["document"], by_document=False) if one.source == "a" and not one.offset)
    texts = SampleTexts(corpora["document"])
    (whole,) = texts.find([sample], ALL)
    assert whole is not None
    assert not whole.endswith("…")
    for characters in (1, 7, len(whole) - 1):
        assert texts.find([sample], characters) == [whole[:characters] + "…"]
    assert texts.find([sample, sample], len(whole)) == [whole, whole]


def test_what_the_corpus_has_not(corpora: dict[str, Path]) -> None:
    known = stored(corpora["concat"], by_document=False)
    inside = next(one for one in stored(corpora["concat"], by_document=True) if one not in known)
    sample = next(iter(known))
    others = [sample._replace(source="nowhere"), sample._replace(document_id="x"), sample._replace(offset=1), inside]
    texts = SampleTexts(corpora["concat"])
    assert texts.find([*others, sample], 9)[:4] == [None] * 4
    assert texts.find([*others, sample], 9)[4] is not None
    assert texts.find([], 9) == []


def make_run(run_dir: Path, **data: Any) -> Path:
    run_dir.mkdir(parents=True)
    (run_dir / "recipe.yaml").write_text(yaml.safe_dump({"data": data, "presence": {"granularity": "document"}}))
    return run_dir


@pytest.mark.parametrize("where", ["here", "above the run", "elsewhere", "above the run, not here"])
def test_a_corpus_that_several_runs_share(
    where: str, corpora: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path of the recipe is one of the folder that it was trained in, which one need not be in."""
    pieces = list(stored(corpora["concat"], by_document=True))
    texts = SampleTexts(corpora["concat"], by_document=True).find(pieces, 20)
    shutil.copytree(corpora["concat"], tmp_path / "project" / "shared")
    run_dir = make_run(tmp_path / "project" / "runs" / "one", prepared="shared")
    if where == "here":
        run_dir = run_dir.rename(tmp_path / "one")
        monkeypatch.chdir(tmp_path / "project")
    if where == "above the run, not here":
        shutil.copytree(corpora["best_fit"], tmp_path / "here" / "shared")
        monkeypatch.chdir(tmp_path / "here")
    if where == "elsewhere":
        run_dir = run_dir.rename(tmp_path / "one")
        with pytest.raises(DataError, match=r"shared, data.prepared of the run in .*, is not there"):
            SampleTexts.of_run(run_dir)
    else:
        assert SampleTexts.of_run(run_dir).find(pieces, 20) == texts
        assert None not in texts


def test_runs_without_text(corpora: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no run in it \(it has no recipe.yaml\)"):
        SampleTexts.of_run(tmp_path)
    with pytest.raises(DataError, match="has streamed its text"):
        SampleTexts.of_run(make_run(tmp_path / "streamed", streaming={"lanes": 8}))
    with pytest.raises(DataError, match="has no corpus/: copy it there"):
        SampleTexts.of_run(make_run(tmp_path / "copied"))
    run_dir = make_run(tmp_path / "old")
    shutil.copytree(corpora["concat"], run_dir / "corpus")
    manifest = run_dir / "corpus" / "corpus.json"
    manifest.write_text(manifest.read_text().replace('"format_version": 4', '"format_version": 3'))
    with pytest.raises(DataError, match="prepared by another version"):
        SampleTexts.of_run(run_dir)
    shutil.copyfile(corpora["concat"] / "corpus.json", manifest)
    (run_dir / "corpus" / "train.arrow").write_bytes(b"")
    with pytest.raises(DataError, match="is no whole corpus"):
        SampleTexts.of_run(run_dir)


@pytest.mark.long
def test_every_sample_that_a_run_has_recorded_is_found(one_rank: Ranks, tiny_recipe: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    (ended,) = one_rank.run(pool_runs.train, [str(tiny_recipe), "--run_dir", str(run_dir), "--training.steps", "4"])
    assert ended["status"] == 0
    samples = [Sample(row["source"], row["document_id"], row["offset"]) for row in read_scores(run_dir)]
    assert {sample.source for sample in samples} == {"lines", "shuffled"}
    assert None not in SampleTexts.of_run(run_dir).find(samples, 20)
