"""``presence prepare RECIPE.yaml OUTPUT [--data.field value ...]``."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from presence_ds.commands.recipe_arguments import check_files, make_recipe_parser, read_recipe
from presence_ds.errors import ConfigError
from presence_ds.printable import printable

HELP = "Tokenize and pack the text of a recipe into a folder that several runs share through data.prepared."


def make_parser() -> ArgumentParser:
    """The fields of `Recipe`, of which data is read, and where to."""
    description = (
        f"{HELP} Needs no GPU, starts no ranks, and reads nothing of the recipe but data, and model.path where "
        "data.tokenizer.path is not set."
    )
    return make_recipe_parser("presence prepare RECIPE.yaml OUTPUT", description, add_options)


def add_options(parser: ArgumentParser) -> None:
    """What is no field of `Recipe`."""
    parser.add_argument(
        "output", type=Path, help="Folder to make. A corpus made with the same data section is left as it is."
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="Replace a corpus in the folder that was made with another."
    )


def run(parser: ArgumentParser, parsed: Namespace, arguments: list[str]) -> None:
    """Prepare, and show what was read, kept, dropped and skipped."""
    recipe, _ = read_recipe(parser, parsed)
    if recipe.data.prepared is not None:
        raise ConfigError(
            f"data.prepared is {recipe.data.prepared}: leave it out to prepare a corpus from data.sources"
        )
    if recipe.data.streaming is not None:
        raise ConfigError("data.streaming is set: leave it out to prepare a corpus, which is not streamed")
    recipe.use_tokenizer_of_model()
    recipe.data.validate()
    check_files(recipe)

    from presence_ds.data import open_corpus, prepare_corpus

    prepare_corpus(recipe.data, parsed.output, overwrite=parsed.overwrite)
    corpus = open_corpus(parsed.output, trust_remote_code=recipe.data.tokenizer.trust_remote_code)
    console = Console(emoji=False)
    console.print(corpus.report.table())
    path = printable(str(parsed.output.absolute()))
    console.print(f"corpus: {path}", highlight=False, soft_wrap=True, markup=False)
