"""A corpus that several runs share: what it fills in, what it refuses, and that nothing happens to it."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from presence_ds.data import (
    BatchStream,
    DataConfig,
    NoiseConfig,
    SourceConfig,
    TokenizerConfig,
    build_loader,
    fill_from_prepared,
    mixture_weights,
    open_corpus,
    prepare_corpus,
)
from presence_ds.data.corpus.manifest import FORMAT_VERSION, MANIFEST, manifest_digest, read_manifest
from presence_ds.errors import ConfigError, DataError
from tests.data.conftest import make_text


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[DataConfig, Path]:
    """A corpus of two sources and noise, and the configuration it was made with."""
    folder = tmp_path_factory.mktemp("shared")
    for source in "ab":
        texts = [{"id": f"{source}{n}", "text": make_text(ord(source) * 1000 + n)} for n in range(60)]
        (folder / f"{source}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))
    config = DataConfig(
        sources=[SourceConfig(name, str(folder / f"{name}.jsonl"), id_field="id", weight=1.0) for name in "ab"],
        validation_fraction=0.1,
        sequence_length=48,
        packing="best_fit",
        tokenizer=TokenizerConfig(vocab_size=400),
        noise=[NoiseConfig(share=0.3)],
        max_bad_share=0.5,
    )
    prepare_corpus(config, folder / "corpus")
    return config, folder / "corpus"


def shared(made: tuple[DataConfig, Path], **fields: Any) -> DataConfig:
    """What a recipe with data.prepared comes to."""
    config = DataConfig(prepared=str(made[1]), **fields)
    fill_from_prepared(config)
    config.validate()
    return config


def test_a_recipe_is_filled_in(made: tuple[DataConfig, Path]) -> None:
    """Everything but the weights and what is of the run, which the corpus does not know."""
    config, folder = made
    sources = [replace(source, weight=None) for source in config.sources]
    assert shared(made, seed=3, num_workers=1) == replace(
        config, sources=sources, prepared=str(folder), seed=3, num_workers=1
    )


def test_it_may_say_the_same_and_be_filled_in_again(made: tuple[DataConfig, Path]) -> None:
    config, folder = made
    again = replace(config, prepared=str(folder))
    fill_from_prepared(again)
    fill_from_prepared(again)
    assert again == replace(config, prepared=str(folder))


def test_weights_are_the_runs_in_any_order(made: tuple[DataConfig, Path]) -> None:
    """Proportions of a stream from the shared corpus, noise included, with another seed in another order."""
    weighted = shared(made, sources=[SourceConfig("b", weight=3.0), SourceConfig("a", weight=1.0)])
    weights = mixture_weights(weighted.sources, open_corpus(made[1]).noise_shares)
    assert weights == pytest.approx({"a": 1.0, "b": 3.0, "shuffled": 4 * 3 / 7})
    assert list(weights or {}) == ["a", "b", "shuffled"]
    corpus = open_corpus(made[1])
    taken = {}
    for seed in (0, 1):
        options = {"micro_batch_size": 8, "rank": 0, "world_size": 1, "seed": seed, "weights": weights}
        stream = BatchStream(build_loader(corpus.train, source_names=corpus.source_names, **options))
        batches = [next(stream) for _ in range(250)]
        taken[seed] = [document for batch in batches for document in batch["document_ids"]]
        ids = [source for batch in batches for source in batch["source_ids"].tolist()]
        assert [ids.count(n) / len(ids) for n in range(3)] == pytest.approx([0.175, 0.525, 0.3], abs=0.02)
    assert taken[0] != taken[1]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sequence_length": 1024}, "data.sequence_length is 1024, and data.prepared"),
        ({"packing": "concat"}, "data.packing is concat, and data.prepared"),
        ({"tokenizer": TokenizerConfig(vocab_size=8192)}, "data.tokenizer.vocab_size is 8192, and"),
        ({"tokenizer": TokenizerConfig(path="other")}, "data.tokenizer.path is other, and"),
        ({"noise": [NoiseConfig(share=0.2)]}, "data.noise is [NoiseConfig(kind='shuffled', share=0.2"),
        ({"validation_fraction": 0.2}, "data.validation_fraction is 0.2, and"),
        ({"validation_sources": [SourceConfig("v", "v.txt")]}, "data.validation_sources is "),
        (
            {"sources": [SourceConfig("a", "other.jsonl"), SourceConfig("b")]},
            "data.sources[0].path is other.jsonl, and",
        ),
        ({"sources": [SourceConfig("a"), SourceConfig("c")]}, 'data.sources[1].name "c" is no source of'),
        ({"sources": [SourceConfig("a")]}, 'data.sources leaves out "b"'),
        ({"sources": [SourceConfig("a"), SourceConfig("a")]}, 'data.sources has two sources named "a"'),
        ({"sources": [SourceConfig("a", weight=1.0), SourceConfig("b")]}, "data.sources[1].weight is not set"),
    ],
)
def test_contradictions_name_their_field(made: tuple[DataConfig, Path], fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        shared(made, **fields)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def overwrite(path: Path) -> None:
    path.write_bytes(b"x" * path.stat().st_size)


def edit(old: str, new: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return change


DAMAGE: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "cut": ("train.arrow", cut, "no whole corpus: train.arrow has"),
    "missing": ("validation.arrow", Path.unlink, "no whole corpus: validation.arrow is missing"),
    "no tokenizer": ("tokenizer/tokenizer.json", Path.unlink, "no whole corpus: tokenizer/tokenizer.json is missing"),
    "no manifest": (MANIFEST, Path.unlink, "holds no prepared corpus"),
    "foreign manifest": (MANIFEST, edit("fingerprint", "fingers"), "holds no prepared corpus"),
    "cut manifest": (MANIFEST, cut, "corpus.json is damaged"),
    "changed manifest": (MANIFEST, edit('"sequence_length": 48', '"sequence_length": 44'), "corpus.json is damaged"),
    "other version": (MANIFEST, edit(f'version": {FORMAT_VERSION}', 'version": 2'), "another version of this package"),
}


@pytest.mark.parametrize("case", list(DAMAGE))
def test_a_corpus_that_is_none(case: str, made: tuple[DataConfig, Path], tmp_path: Path) -> None:
    shutil.copytree(made[1], tmp_path / "corpus")
    file, damage, message = DAMAGE[case]
    damage(tmp_path / "corpus" / file)
    for open_it in (
        lambda: fill_from_prepared(DataConfig(prepared=str(tmp_path / "corpus"))),
        lambda: open_corpus(tmp_path / "corpus"),
    ):
        with pytest.raises(DataError) as caught:
            open_it()
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


def test_overwritten_samples(made: tuple[DataConfig, Path], tmp_path: Path) -> None:
    shutil.copytree(made[1], tmp_path / "corpus")
    overwrite(tmp_path / "corpus" / "train.arrow")
    with pytest.raises(DataError, match=r"train\.arrow is damaged"):
        open_corpus(tmp_path / "corpus")


def test_a_field_of_another_version_is_not_passed_over(made: tuple[DataConfig, Path], tmp_path: Path) -> None:
    shutil.copytree(made[1], tmp_path / "corpus")
    manifest = read_manifest(tmp_path / "corpus")
    assert manifest is not None
    manifest["config"]["sources"][0]["lowercase"] = True
    manifest["digest"] = manifest_digest(manifest)
    (tmp_path / "corpus" / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"prepared with data\.sources\.0\.lowercase, which this version"):
        fill_from_prepared(DataConfig(prepared=str(tmp_path / "corpus")))


def test_a_corpus_of_when_noise_had_one_kind(made: tuple[DataConfig, Path], tmp_path: Path) -> None:
    """Its manifest has a section in the place of the list, and no languages: it fills a recipe in, and is kept."""
    config, folder = made
    shutil.copytree(folder, tmp_path / "corpus")
    manifest = read_manifest(tmp_path / "corpus")
    assert manifest is not None
    assert manifest["config"]["noise"] == [{"kind": "shuffled", "share": 0.3, "name": "shuffled"}]
    manifest["config"]["noise"] = {"share": 0.3, "name": "shuffled"}
    for source in manifest["config"]["sources"]:
        assert source.pop("language") is None
    manifest["fingerprint"] = earlier_fingerprint(manifest["config"])
    manifest["digest"] = manifest_digest(manifest)
    (tmp_path / "corpus" / MANIFEST).write_text(json.dumps(manifest))
    earlier = config, tmp_path / "corpus"
    for noise in (None, NoiseConfig(share=0.3), [NoiseConfig("shuffled", 0.3, "shuffled")]):
        assert shared(earlier, noise=noise).noises == config.noises
    for other in (NoiseConfig("random", 0.3, "shuffled"), [*config.noises, NoiseConfig("random", 0.1)]):
        with pytest.raises(ConfigError, match=r"^data\.noise is \["):
            shared(earlier, noise=other)
    assert open_corpus(tmp_path / "corpus").source_names == ["a", "b", "shuffled"]
    prepare_corpus(replace(config), tmp_path / "corpus", overwrite=False)
    assert read_manifest(tmp_path / "corpus") == manifest


def earlier_fingerprint(section: dict[str, Any]) -> str:
    """What a corpus of jsonl sources was known by, of the section in its manifest."""
    left_out = ("num_workers", "prepared", "document_mask")
    settings = {name: value for name, value in section.items() if name not in left_out}
    sources = [{name: value for name, value in source.items() if name != "weight"} for source in section["sources"]]
    found = [(source["path"], Path(source["path"]).stat()) for source in sources]
    stats = [(path, stat.st_size, stat.st_mtime_ns) for path, stat in found]
    content = json.dumps([FORMAT_VERSION, settings | {"sources": sources}, stats])
    return hashlib.sha256(content.encode()).hexdigest()


def test_nowhere(made: tuple[DataConfig, Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no prepared corpus"):
        fill_from_prepared(DataConfig(prepared=str(tmp_path / "nowhere")))
    with pytest.raises(ConfigError, match=r"data\.prepared is empty"):
        fill_from_prepared(DataConfig(prepared=""))


def test_another_corpus_is_only_replaced_when_told(made: tuple[DataConfig, Path], tmp_path: Path) -> None:
    config, _ = made
    prepare_corpus(replace(config), tmp_path / "corpus", overwrite=False)
    before = (tmp_path / "corpus" / MANIFEST).stat().st_ino
    prepare_corpus(replace(config), tmp_path / "corpus", overwrite=False)
    with pytest.raises(DataError, match="holds a corpus that was made otherwise"):
        prepare_corpus(replace(config, sequence_length=32), tmp_path / "corpus", overwrite=False)
    assert (tmp_path / "corpus" / MANIFEST).stat().st_ino == before
