"""Evaluation reads the same batches each time, and they stand for every source."""

from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import pytest

from presence_ds.commands import train
from presence_ds.commands.recipe_arguments import read_recipe
from presence_ds.data import open_corpus, prepare_corpus
from presence_ds.trainer.recipe import Recipe
from presence_ds.trainer.run import corpus_loader


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
    loader = corpus_loader(open_corpus(folder).validation, recipe, ranks)  # type: ignore[arg-type]
    first = [batch["source_ids"].tolist() + batch["document_ids"] for batch in islice(loader, 5)]
    again = [batch["source_ids"].tolist() + batch["document_ids"] for batch in islice(loader, 5)]
    assert again == first
    assert {source for batch in first for source in batch[:4]} == {0, 1}
