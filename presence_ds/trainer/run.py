"""One rank of a training run, from a recipe to the summary."""

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import transformers
from rich.console import Console as RichConsole

import presence_ds
from presence_ds.data import Corpus
from presence_ds.data.corpus.lock import reading
from presence_ds.data.corpus.prepared import prepared_folder
from presence_ds.errors import Stopped
from presence_ds.launch.slurm import restart_count
from presence_ds.printable import printable
from presence_ds.trainer.batches import SharedBatches, load_corpus, training_batches
from presence_ds.trainer.building.construction import build_model
from presence_ds.trainer.building.device import hardware_has_bf16
from presence_ds.trainer.building.document_mask import check_document_mask
from presence_ds.trainer.building.learning_rate import build_lr_scheduler
from presence_ds.trainer.building.optimizer import build_optimizer
from presence_ds.trainer.building.vocabulary import Vocabulary, fit_vocabulary
from presence_ds.trainer.callbacks.anomalies import Anomalies
from presence_ds.trainer.callbacks.callback import Callback
from presence_ds.trainer.callbacks.checkpoint import Checkpoints
from presence_ds.trainer.callbacks.console import Console, print_setup
from presence_ds.trainer.callbacks.evaluation import make_evaluation
from presence_ds.trainer.callbacks.metrics_file import MetricsFile
from presence_ds.trainer.callbacks.profiler import Profiler
from presence_ds.trainer.callbacks.reference import make_reference
from presence_ds.trainer.callbacks.requeues import Requeues
from presence_ds.trainer.callbacks.score_records import RANKS_PER_FILE, ScoreRecords
from presence_ds.trainer.callbacks.setup_facts import setup_facts
from presence_ds.trainer.callbacks.stage_summary import StageSummary
from presence_ds.trainer.callbacks.stopping import Stopping
from presence_ds.trainer.callbacks.throughput import Throughput, make_throughput
from presence_ds.trainer.checkpoint.changed_recipe import agreed_changes, recipe_values
from presence_ds.trainer.checkpoint.loading import load_settings
from presence_ds.trainer.checkpoint.resuming import Resume, check_fits, find_resume, restore
from presence_ds.trainer.ranks.failure import Failures
from presence_ds.trainer.ranks.health import check_health
from presence_ds.trainer.ranks.process_group import Neighbours, Ranks
from presence_ds.trainer.ranks.rank_log import RankLog
from presence_ds.trainer.ranks.stop_signals import StopSignals
from presence_ds.trainer.recipe.deepspeed import is_offloaded
from presence_ds.trainer.recipe.plan import Plan, make_plan
from presence_ds.trainer.recipe.recipe import Recipe
from presence_ds.trainer.run_directory.hang_watch import HangWatch, collective_timeout
from presence_ds.trainer.run_directory.hub_commits import pin_commits
from presence_ds.trainer.run_directory.layout import RunDirectory, run_directory_path, write_json, write_stopped
from presence_ds.trainer.run_directory.lock import RunLock
from presence_ds.trainer.trackers.tracking import make_tracking
from presence_ds.trainer.trainer import Trainer


def train(recipe: Recipe, recipe_file: Path | None, resolved: dict[str, Any]) -> None:
    """Train as ``recipe`` says, on a rank that a launcher has started.

    Args:
        recipe_file: the YAML file it was read from, if any; files that it names are looked up beside it.
        resolved: the recipe as plain values, to be written to the run directory.

    Raises:
        SystemExit: after an error, when it has been said (`presence_ds.trainer.ranks.failure`).
    """
    timeout = collective_timeout(recipe.stop.hang_seconds)
    with (
        Failures() as failures,
        StopSignals(recipe.stop) as signals,
        Ranks(signals, timeout) as ranks,
        RunLock() as lock,
    ):
        failures.connect(ranks)
        train_on(ranks, lock, signals, recipe, recipe_file, resolved, failures=failures)


def train_on(
    ranks: Ranks,
    lock: RunLock,
    signals: StopSignals,
    recipe: Recipe,
    recipe_file: Path | None,
    resolved: dict[str, Any],
    more_callbacks: dict[str, Callback] | None = None,
    failures: Failures | None = None,
) -> None:
    """`train` with the ranks connected; takes ``lock`` for the run directory. ``more_callbacks`` are called last."""
    failures = failures or Failures()
    console = RichConsole(quiet=not ranks.is_main, emoji=False)
    if not ranks.is_main:
        transformers.logging.set_verbosity_error()  # rank 0 says it
    bf16_hardware = ranks.all(hardware_has_bf16())
    with ranks.agreement():
        shared = reading(prepared_folder(recipe.data)) if recipe.data.prepared else nullcontext()
        plan = make_plan(recipe, recipe_file, world_size=ranks.world_size, bf16_hardware=bf16_hardware)
    for text in plan.warnings:
        ranks.warn(text)
    directory = RunDirectory(ranks.broadcast(run_directory_path(recipe.run_dir, recipe_file)))
    may_resume = recipe.checkpoint.resume != "never"
    ranks.on_main(partial(directory.claim, training_steps=recipe.training.steps, may_resume=may_resume))
    lock.acquire(directory.lock, ranks)
    resume = find_resume(recipe.checkpoint, directory.checkpoints, ranks, ranks.warn)
    ranks.on_main(partial(directory.begin, resolved))
    with shared, RankLog(directory.log(ranks.rank), redirected=not ranks.is_main):
        try:
            if recipe.health.enabled:
                health = check_health(ranks, recipe.health, ranks.warn)
                console.print(health, highlight=False, soft_wrap=True)
            watch = HangWatch(ranks, directory, recipe.stop.hang_seconds, failures)
            trainer = set_up(
                directory, resume, plan, ranks, signals, watch, console, recipe, resolved, more_callbacks or {}
            )
        except Stopped as stopped:
            if ranks.is_main:
                step = 0 if resume is None else resume.manifest.step
                write_stopped(directory, stopped.reason, str(stopped), stopped.status, step)
            raise
        trainer.fit()


def set_up(
    directory: RunDirectory,
    resume: Resume | None,
    plan: Plan,
    ranks: Ranks,
    signals: StopSignals,
    watch: HangWatch,
    console: RichConsole,
    recipe: Recipe,
    resolved: dict[str, Any],
    more_callbacks: dict[str, Callback],
) -> Trainer:
    """Everything before the first step, with the run directory open."""
    pin_commits(recipe.data, resolved, directory.hub_commits, ranks, resuming=resume is not None)
    values = recipe_values(recipe, plan, resolved["deepspeed"], directory.path)
    if resume is not None:
        for change in agreed_changes(resume.path, resume.manifest, values, ranks):
            line = f"changed since the checkpoint: {printable(str(change))}"
            console.print(line, highlight=False, soft_wrap=True, markup=False)
    corpus = load_corpus(recipe.data, directory, ranks)
    with ranks.agreement():
        fit_vocabulary(plan.model_config, recipe.model, Vocabulary.of(corpus.tokenizer))
        transformers.set_seed(recipe.training.seed)
        model = build_model(plan.model_config, recipe.model)
    throughput = make_throughput(recipe, plan, ranks.world_size)

    offloaded_to_cpu = is_offloaded(plan.deepspeed["zero_optimization"], "optimizer")
    optimizer = build_optimizer(model, recipe.optimizer, offloaded_to_cpu=offloaded_to_cpu)
    scheduler = build_lr_scheduler(optimizer, recipe.lr_schedule, recipe.training.steps)
    settings = load_settings(plan.deepspeed) if resume is not None and resume.resized else plan.deepspeed
    engine, _, _, _ = presence_ds.initialize(
        model=model, config=settings, presence=recipe.presence, optimizer=optimizer, lr_scheduler=scheduler
    )
    if recipe.data.document_mask:
        check_document_mask(engine)
        engine.separation_checked = True
    if recipe.model.compile_backend is not None:
        engine.compile(recipe.model.compile_backend)
    transformers.set_seed(recipe.training.seed + 1 + ranks.rank)  # dropout differs between ranks

    batches = training_batches(corpus, recipe, ranks, engine.presence.messages)
    neighbours = ranks.neighbours(RANKS_PER_FILE)
    with ranks.agreement():
        callbacks = make_callbacks(
            recipe, resolved, values, corpus, directory, ranks, neighbours, signals, console, throughput
        )
    trainer = Trainer(
        engine,
        batches,
        ranks,
        callbacks | more_callbacks,
        watch,
        total_steps=recipe.training.steps,
        log_every_steps=recipe.logging.every_steps,
        tokens_per_step=plan.tokens_per_step,
        text_tokens=plan.text_tokens,
        source_names=corpus.source_names,
    )
    if resume is not None:
        with ranks.agreement():
            check_fits(trainer, resume)
        restore(trainer, resume)
    if isinstance(batches, SharedBatches):
        batches.prime()
    with ranks.agreement():
        if ranks.is_main:  # nothing of an earlier run is touched before its checkpoint is loaded
            directory.discard_after(trainer.step, resume.damaged if resume else ())
            directory.write_recipe(resolved)
            write_json(directory.deepspeed, plan.deepspeed)
    console.print(corpus.report.table())
    print_setup(console, setup_facts(recipe, plan, trainer, directory))
    ranks.set_up()
    return trainer


def make_callbacks(
    recipe: Recipe,
    resolved: dict[str, Any],
    values: dict[str, Any],
    corpus: Corpus,
    directory: RunDirectory,
    ranks: Ranks,
    neighbours: Neighbours,
    signals: StopSignals,
    console: RichConsole,
    throughput: Throughput,
) -> dict[str, Callback]:
    """The callbacks of this rank in the order they are called; the names are those in a checkpoint."""
    callbacks: dict[str, Callback] = {}
    if recipe.logging.score_records:
        callbacks["score_records"] = ScoreRecords(directory.scores, ranks.rank, neighbours, corpus.source_names)
    callbacks["throughput"] = throughput
    if (restarts := restart_count()) is not None:
        callbacks["requeues"] = Requeues(restarts)
    anomalies = Anomalies(recipe.anomalies, directory.checkpoints)
    callbacks["anomalies"] = anomalies
    evaluation = make_evaluation(recipe, corpus, ranks) if len(corpus.validation) > 0 else None
    if evaluation is not None:
        callbacks["evaluation"] = evaluation
    if ranks.is_main:
        callbacks["metrics_file"] = MetricsFile(directory.metrics)
        callbacks["console"] = Console(console)
    tracking = make_tracking(recipe, resolved, corpus, directory, is_main=ranks.is_main, warn=console.print)
    if tracking is not None:
        callbacks["trackers"] = tracking
    if recipe.reference.sources:
        callbacks["reference"] = make_reference(recipe, corpus, ranks)
    callbacks["stage_summary"] = StageSummary(directory.summary, evaluation, throughput, anomalies, console)
    callbacks["stopping"] = Stopping(recipe.stop, directory, signals)
    callbacks["checkpoints"] = Checkpoints(recipe.checkpoint, directory.checkpoints, values, anomalies)
    if recipe.profiler.enabled and ranks.rank in recipe.profiler.ranks:
        callbacks["profiler"] = Profiler(recipe.profiler, directory.profile, ranks.rank)  # last: as it counts steps
    return callbacks
