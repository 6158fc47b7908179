"""Weights of sources: what is refused, and what a recipe's mixture comes to."""

import json
from collections import Counter
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from presence_ds.data import DataConfig, SourceConfig, open_corpus, prepare_corpus
from presence_ds.data.sources.noise import NoiseConfig
from presence_ds.data.tokenizer.config import TokenizerConfig
from presence_ds.errors import ConfigError
from presence_ds.reweighting import Messages
from presence_ds.trainer.batches import training_batches
from presence_ds.trainer.recipe.recipe import Recipe, TrainingConfig


def sources(*weights: float | None, path: str = "a.jsonl") -> list[SourceConfig]:
    return [SourceConfig(f"source {index}", path, weight=weight) for index, weight in enumerate(weights)]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ((1.0, None), r"data.sources\[1\].weight is not set, and other sources have one"),
        ((0.0, 1.0), r"data.sources\[0\].weight is 0.0: it must be above 0, or null"),
        ((1.0, -2.0), r"data.sources\[1\].weight is -2.0"),
        ((float("nan"), 1.0), r"data.sources\[0\].weight is nan"),
        ((1.0, float("inf")), r"data.sources\[1\].weight is inf: it must be above 0 and finite, or null"),
        ((1.0, 1e-9), r"data.sources\[1\].weight is 1e-09: it must be at least 1e-06 of the sum"),
    ],
)
def test_weights_that_cannot_be_used(weights: tuple[float | None, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DataConfig(sources(*weights)).validate()


def test_validation_sources_have_no_weight() -> None:
    with pytest.raises(ConfigError, match=r"data.validation_sources\[0\].weight is 1.0: it must be null"):
        DataConfig(sources(None), validation_sources=sources(1.0)).validate()


def test_a_recipe_of_three_to_one_with_noise(tmp_path: Path) -> None:
    """The large source gives a quarter of what is not noise, and each kind its share.

    Another weight does not prepare the corpus again.
    """
    for name, lines in (("small", 200), ("large", 2000)):
        rows = [{"text": f"{name} {number} and some more words after it"} for number in range(lines)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = DataConfig(
        sources=[SourceConfig(name, str(tmp_path / f"{name}.jsonl")) for name in ("small", "large")],
        validation_fraction=0.0,
        sequence_length=16,
        tokenizer=TokenizerConfig(vocab_size=300),
        noise=[NoiseConfig("shuffled", 0.2), NoiseConfig("permuted", 0.1)],
    )
    prepare_corpus(config, tmp_path / "corpus")
    written = (tmp_path / "corpus" / "corpus.json").stat().st_mtime_ns
    config.sources[0].weight, config.sources[1].weight = 3.0, 1.0
    prepare_corpus(config, tmp_path / "corpus")
    assert (tmp_path / "corpus" / "corpus.json").stat().st_mtime_ns == written
    corpus = open_corpus(tmp_path / "corpus")
    ranks: Any = SimpleNamespace(rank=0, world_size=1)
    recipe = Recipe(config, training=TrainingConfig(micro_batch_size=64))
    batches = islice(training_batches(corpus, recipe, ranks, Messages()), 1024 * 4 // 64)
    counts = Counter(source_id for batch in batches for source_id in batch["source_ids"].tolist())
    shares = {corpus.source_names[source_id]: count / 4096 for source_id, count in counts.items()}
    assert shares == pytest.approx({"small": 0.525, "large": 0.175, "shuffled": 0.2, "permuted": 0.1}, abs=1e-3)
