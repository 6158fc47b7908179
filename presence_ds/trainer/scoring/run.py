"""One rank that scores a corpus, from a recipe to the last file of its shard."""

from functools import partial
from pathlib import Path
from typing import Any

import transformers
from rich.console import Console

from presence_ds.data import open_for, prepare_corpus
from presence_ds.data.corpus.lock import reading
from presence_ds.data.corpus.prepared import prepared_folder
from presence_ds.trainer.building.device import hardware_has_bf16
from presence_ds.trainer.building.vocabulary import Vocabulary, fit_vocabulary
from presence_ds.trainer.ranks.failure import Failures
from presence_ds.trainer.ranks.process_group import Ranks
from presence_ds.trainer.ranks.rank_log import RankLog
from presence_ds.trainer.ranks.stop_signals import StopSignals
from presence_ds.trainer.recipe.plan import make_plan
from presence_ds.trainer.recipe.recipe import Recipe
from presence_ds.trainer.run_directory.hang_watch import collective_timeout
from presence_ds.trainer.scoring.folder import ScoresFolder
from presence_ds.trainer.scoring.manifest import make_manifest
from presence_ds.trainer.scoring.models import (
    ScoringModel,
    check_tokenizer,
    check_trained_on,
    find_models,
    scoring_recipe,
)
from presence_ds.trainer.scoring.request import Request
from presence_ds.trainer.scoring.shard import Shard


def score(recipe: Recipe, recipe_file: Path | None, request: Request) -> None:
    """Score as ``request`` says, on a rank that a launcher has started.

    Raises:
        SystemExit: after an error, when it has been said (`presence_ds.trainer.ranks.failure`).
    """
    timeout = collective_timeout(recipe.stop.hang_seconds)
    with Failures() as failures, StopSignals(recipe.stop) as signals, Ranks(signals, timeout) as ranks:
        failures.connect(ranks)
        score_on(ranks, signals, recipe, recipe_file, request)


def score_on(ranks: Ranks, signals: StopSignals, recipe: Recipe, recipe_file: Path | None, request: Request) -> None:
    """`score` with the ranks connected.

    Raises:
        PresenceError: the same on every rank; before anything is written, if what is asked for cannot be done.
    """
    console = Console(quiet=not ranks.is_main, emoji=False)
    if not ranks.is_main:
        transformers.logging.set_verbosity_error()  # rank 0 says it
    bf16_hardware = ranks.all(hardware_has_bf16())
    folder = ScoresFolder(request.output)
    with ranks.agreement():
        request.check(recipe)
        recipe = scoring_recipe(recipe, request)
        plan = make_plan(recipe, recipe_file, world_size=ranks.world_size, bf16_hardware=bf16_hardware)
    for text in plan.warnings:
        ranks.warn(text)

    def look() -> list[ScoringModel]:
        folder.check()
        found = find_models(request.checkpoints, request.model, getattr(plan.model_config, "_commit_hash", None))
        for model in found:
            check_trained_on(model, plan.model_config, recipe, ranks.warn, fitted=False)
        folder.check_same(make_manifest(request, recipe, plan, found))
        return found

    models = ranks.on_main(look)
    where = folder.corpus if recipe.data.prepared is None else prepared_folder(recipe.data).absolute()
    if recipe.data.prepared is None:
        ranks.on_main(partial(prepare_corpus, recipe.data, where, overwrite=False))
    with ranks.agreement():
        shared = reading(where)
    with shared:
        with ranks.agreement():
            corpus = open_for(recipe.data, where)
            fit_vocabulary(plan.model_config, recipe.model, Vocabulary.of(corpus.tokenizer))

        def look_again() -> dict[str, Any]:
            for model in models:
                check_trained_on(model, plan.model_config, recipe, lambda _: None, fitted=True)
                check_tokenizer(model, corpus.tokenizer, recipe, ranks.warn)
            manifest = make_manifest(request, recipe, plan, models, corpus, where)
            folder.check_same(manifest)
            folder.logs.mkdir(parents=True, exist_ok=True)
            return manifest

        manifest = ranks.on_main(look_again)
        log = f"shard_{request.shard[0]:05d}-rank_{ranks.rank:05d}.log"
        with RankLog(folder.logs / log, redirected=not ranks.is_main):
            ranks.set_up()
            Shard(ranks, signals, recipe, plan, request, folder, manifest, models, corpus, console).run()
