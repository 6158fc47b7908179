"""Evaluation reads the same batches each time, they stand for every source, and each source has its own figures."""

import math
from collections import Counter, defaultdict
from itertools import islice
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace

import pytest
import torch

from presence_ds.commands import train
from presence_ds.commands.recipe_arguments import read_recipe
from presence_ds.data import build_evaluation_loader, open_corpus, prepare_corpus
from presence_ds.trainer.batches import loader_options
from presence_ds.trainer.callbacks.evaluation import figures_of, tenths
from presence_ds.trainer.recipe.recipe import Recipe
from tests.ranks import Ranks
from tests.trainer.callbacks import evaluations


@pytest.fixture(scope="module")
def corpora(corpus_file: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path]:
    work = tmp_path_factory.mktemp("two_sources")
    recipe_file = work / "recipe.yaml"
    recipe_file.write_text(
        f"data: {{sources: [{{name: a, path: {corpus_file}}}, {{name: b, path: {corpus_file}, id_field: id}}], "
        f"validation_fraction: 0.2, sequence_length: 32, tokenizer: {{vocab_size: 300}}}}\n"
        f"training: {{micro_batch_size: 4}}\n"
    )
    parser = train.make_parser()
    recipe, _ = read_recipe(parser, parser.parse_args([str(recipe_file)]))
    prepare_corpus(recipe.data, work / "corpus")
    return recipe, work / "corpus"


def test_a_few_batches_hold_every_source_and_do_not_change(corpora: tuple[Recipe, Path]) -> None:
    recipe, folder = corpora
    ranks = SimpleNamespace(rank=0, world_size=2)
    options = loader_options(recipe, ranks)  # type: ignore[arg-type]
    loader = build_evaluation_loader(open_corpus(folder).validation, **options)
    first = [batch["source_ids"].tolist() + batch["document_ids"] for batch in islice(loader, 5)]
    again = [batch["source_ids"].tolist() + batch["document_ids"] for batch in islice(loader, 5)]
    assert again == first
    assert {source for batch in first for source in batch[:4]} == {0, 1}


def test_figures_of_every_source_are_the_same_on_one_and_on_two_ranks(one_rank: Ranks, two_ranks: Ranks) -> None:
    sums = evaluations.expected()
    sums["all"] = [sum(column) for column in zip(*sums.values(), strict=True)]
    expected = {}
    for name, (loss, targets, text_bytes) in sums.items():
        prefix = "validation" if name == "all" else f"validation/{name}"
        expected[f"{prefix}/loss"] = loss / targets
        expected[f"{prefix}/perplexity"] = math.exp(loss / targets)
        expected[f"{prefix}/bits_per_byte"] = loss / math.log(2) / text_bytes
    for pool in (one_rank, two_ranks):
        for stage in (2, 3):
            for metrics in pool.run(evaluations.evaluate, stage):
                assert metrics == pytest.approx(expected, rel=1e-6)


def test_tenths_are_by_how_frequent_tokens_are_on_one_and_on_two_ranks(one_rank: Ranks, two_ranks: Ranks) -> None:
    found = list(evaluations.targets())
    counts = Counter(token for _, token, _ in found)
    passed, expected = 0.0, defaultdict(list)
    for token, count in sorted(counts.items(), key=lambda one: (-one[1], one[0])):
        place = int(10 * (passed + count / 2) / len(found)) + 1
        expected[f"validation/tenth_{place}"] += [loss for _, other, loss in found if other == token]
        passed += count
    assert len(expected) == 10
    for pool in (one_rank, two_ranks):
        for metrics in pool.run(evaluations.evaluate, 2, None, True):
            told = {name: value for name, value in metrics.items() if "tenth" in name}
            assert told == pytest.approx({name: fmean(losses) for name, losses in expected.items()}, rel=1e-6)


def test_a_tenth_within_the_targets_of_one_token_is_left_out() -> None:
    counts = torch.tensor([0.0, 10.0, 55.0, 35.0], dtype=torch.float64)
    assert tenths(2.0 * counts, counts) == {3: 2.0, 8: 2.0, 10: 2.0}
    assert tenths(counts[:0], counts[:0]) == {}


def test_max_batches_is_per_rank(one_rank: Ranks, two_ranks: Ranks) -> None:
    (alone,) = one_rank.run(evaluations.evaluate, 2, 2)
    for metrics in two_ranks.run(evaluations.evaluate, 2, 1):
        assert metrics == pytest.approx(alone, rel=1e-6)


def test_a_source_without_targets_or_text() -> None:
    assert figures_of("validation/a", 0.0, 0.0, 0.0) == {}
    figures = figures_of("a", 3e5, 100.0, 0.0)
    assert figures == {"a/loss": 3e3, "a/perplexity": math.inf, "a/bits_per_byte": None}
