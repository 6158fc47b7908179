"""One rank of a training run, from a recipe to the summary."""

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
import yaml
from rich.console import Console as RichConsole

import presence_ds
from presence_ds.data import (
    BatchStream,
    Corpus,
    build_loader,
    open_corpus,
    prepare_corpus,
)
from presence_ds.data.corpus.lock import reading
from presence_ds.data.corpus.manifest import TOKENIZER_FOLDER
from presence_ds.data.corpus.prepared import prepared_folder
from presence_ds.data.tokenizer.token_bytes import token_bytes
from presence_ds.errors import DataError, Stopped
from presence_ds.launch.slurm import restart_count
from presence_ds.trainer.batches import SharedBatches, evaluation_loader, loader_options, training_batches
from presence_ds.trainer.building.build import build_model
from presence_ds.trainer.building.device import device_name, known_peak_tflops
from presence_ds.trainer.building.learning_rate import build_lr_scheduler
from presence_ds.trainer.building.optimizer import build_optimizer
from presence_ds.trainer.building.precision import hardware_has_bf16
from presence_ds.trainer.building.vocabulary import Vocabulary, fit_vocabulary
from presence_ds.trainer.callbacks.anomalies import Anomalies
from presence_ds.trainer.callbacks.callback import Callback
from presence_ds.trainer.callbacks.checkpoint import Checkpoints
from presence_ds.trainer.callbacks.console import Console, print_setup, print_summary
from presence_ds.trainer.callbacks.evaluation import Evaluation
from presence_ds.trainer.callbacks.metrics_file import MetricsFile
from presence_ds.trainer.callbacks.reference import ReferenceStream
from presence_ds.trainer.callbacks.requeues import Requeues
from presence_ds.trainer.callbacks.score_records import RANKS_PER_FILE, ScoreRecords
from presence_ds.trainer.callbacks.setup_facts import setup_facts
from presence_ds.trainer.callbacks.stage_summary import StageSummary
from presence_ds.trainer.callbacks.stopping import Stopping
from presence_ds.trainer.callbacks.throughput import Throughput
from presence_ds.trainer.callbacks.wandb_run import WandbRun
from presence_ds.trainer.checkpoint import (
    Resume,
    check_fits,
    find_resume,
    load_settings,
    recipe_changes,
    recipe_values,
    restore,
    stored_recipe,
)
from presence_ds.trainer.estimate.flops import count_flops
from presence_ds.trainer.ranks.distributed import Neighbours, Ranks
from presence_ds.trainer.ranks.failure import Failures
from presence_ds.trainer.ranks.health import check_health
from presence_ds.trainer.ranks.rank_log import RankLog
from presence_ds.trainer.ranks.stop_signals import StopSignals
from presence_ds.trainer.recipe.plan import Plan, make_plan
from presence_ds.trainer.recipe.recipe import Recipe
from presence_ds.trainer.run_directory.directory import (
    RunDirectory,
    default_run_directory,
    write_atomically,
    write_json,
    write_stopped,
)
from presence_ds.trainer.run_directory.hang_watch import HangWatch, collective_timeout
from presence_ds.trainer.run_directory.hub_commits import pin_commits
from presence_ds.trainer.run_directory.lock import RunLock
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
    console = RichConsole(quiet=not ranks.is_main)
    if not ranks.is_main:
        transformers.logging.set_verbosity_error()  # rank 0 says it
    bf16_hardware = ranks.all(hardware_has_bf16())
    with ranks.agreement():
        shared = reading(prepared_folder(recipe.data)) if recipe.data.prepared else nullcontext()
        plan = make_plan(recipe, recipe_file, world_size=ranks.world_size, bf16_hardware=bf16_hardware)
    for text in plan.warnings:
        ranks.warn(text)
    directory, resume = open_run_directory(recipe, recipe_file, resolved, ranks, lock)
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
        tell_changes(resume, values, ranks, console)
    corpus = load_corpus(recipe, directory, ranks)
    with ranks.agreement():
        fit_vocabulary(plan.model_config, recipe.model, Vocabulary.of(corpus.tokenizer))
        transformers.set_seed(recipe.training.seed)
        model = build_model(plan.model_config, recipe.model)
    throughput = make_throughput(recipe, plan, model, ranks)  # before ZeRO-3 partitions the model

    optimizer = build_optimizer(model, recipe.optimizer, offloaded_to_cpu=plan.offloaded_to_cpu)
    scheduler = build_lr_scheduler(optimizer, recipe.lr_schedule, recipe.training.steps)
    settings = load_settings(plan.deepspeed) if resume is not None and resume.resized else plan.deepspeed
    engine, _, _, _ = presence_ds.initialize(
        model=model, config=settings, presence=recipe.presence, optimizer=optimizer, lr_scheduler=scheduler
    )
    if recipe.model.compile_backend is not None:
        engine.compile(recipe.model.compile_backend)
    transformers.set_seed(recipe.training.seed + 1 + ranks.rank)  # dropout differs between ranks

    batches = training_batches(corpus, recipe, ranks)
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
            write_recipe(directory, resolved)
            write_json(directory.deepspeed, plan.deepspeed)
    console.print(corpus.report.table())
    print_setup(console, setup_facts(recipe, plan, trainer, directory))
    ranks.set_up()
    return trainer


def open_run_directory(
    recipe: Recipe, recipe_file: Path | None, resolved: dict[str, Any], ranks: Ranks, lock: RunLock
) -> tuple[RunDirectory, Resume | None]:
    """The run directory, ready to be written to, and the checkpoint to go on from, if any."""
    path = recipe.run_dir or default_run_directory(recipe_file)
    directory = RunDirectory(Path(ranks.broadcast(str(Path(path).expanduser().absolute()))))
    with ranks.agreement():
        if ranks.is_main:
            directory.claim(training_steps=recipe.training.steps, may_resume=recipe.checkpoint.resume != "never")
    lock.acquire(directory.lock, ranks)
    resume = find_resume(recipe.checkpoint, directory.checkpoints, ranks, ranks.warn)
    with ranks.agreement():
        if ranks.is_main:
            if not directory.recipe.is_file():  # first of all: a directory without it is taken for someone else's
                write_recipe(directory, resolved)
            for folder in (directory.checkpoints, directory.logs):
                folder.mkdir(exist_ok=True)
    return directory, resume


def tell_changes(resume: Resume, values: dict[str, Any], ranks: Ranks, console: RichConsole) -> None:
    """Show what the recipe changes in a run that goes on, before anything is read; a `ConfigError` if it must not."""
    before = ranks.broadcast(stored_recipe(resume.path, resume.manifest) if ranks.is_main else None)
    with ranks.agreement():
        for change in recipe_changes(resume.path, before, values, ranks.warn):
            console.print(f"changed since the checkpoint: {change}", highlight=False, soft_wrap=True, markup=False)


def write_recipe(directory: RunDirectory, resolved: dict[str, Any]) -> None:
    """Write the recipe as resolved to the run directory."""
    write_atomically(directory.recipe, yaml.safe_dump({**resolved, "run_dir": str(directory.path)}, sort_keys=False))


def load_corpus(recipe: Recipe, directory: RunDirectory, ranks: Ranks) -> Corpus:
    """The corpus: ``data.prepared``, or one that is prepared on rank 0 unless that is done."""
    folder = directory.corpus if recipe.data.prepared is None else prepared_folder(recipe.data)
    with ranks.agreement():
        if ranks.is_main and recipe.data.prepared is None:
            prepare_corpus(recipe.data, folder)
    with ranks.agreement():
        corpus = open_corpus(folder, trust_remote_code=recipe.data.tokenizer.trust_remote_code, seed=recipe.data.seed)
        if ranks.is_main and recipe.data.prepared is not None:
            directory.keep_tokenizer(folder / TOKENIZER_FOLDER)
    return corpus


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
    anomalies = Anomalies(recipe.anomalies, directory.checkpoints, ranks.warn)
    callbacks["anomalies"] = anomalies
    evaluation = None
    if len(corpus.validation) > 0:
        validation = evaluation_loader(corpus.validation, recipe, ranks)
        sizes = None
        if recipe.data.objective.is_causal:
            try:
                sizes = token_bytes(corpus.tokenizer)
            except DataError as error:
                ranks.warn(f"there are no bits per byte: {error}")
        callbacks["evaluation"] = evaluation = Evaluation(recipe.evaluation, validation, sizes)
    if ranks.is_main:
        callbacks["metrics_file"] = MetricsFile(directory.metrics)
        callbacks["console"] = Console(console)
        if recipe.wandb.enabled:
            callbacks["wandb"] = WandbRun(recipe.wandb, directory, resolved, console.print, recipe.stop.signal_numbers)
    if recipe.reference.sources:
        trusted = corpus.train.of_sources([corpus.source_names.index(name) for name in recipe.reference.sources])
        stream = BatchStream(build_loader(trusted, **loader_options(recipe, ranks)))
        callbacks["reference"] = ReferenceStream(recipe.reference.every_steps, stream)
    show = partial(print_summary, console)
    callbacks["stage_summary"] = StageSummary(directory.summary, evaluation, throughput, anomalies, show)
    callbacks["stopping"] = Stopping(recipe.stop, directory, signals)
    callbacks["checkpoints"] = Checkpoints(recipe.checkpoint, directory.checkpoints, values, anomalies, ranks.warn)
    return callbacks


def make_throughput(recipe: Recipe, plan: Plan, model: torch.nn.Module, ranks: Ranks) -> Throughput:
    """The clock, told what the model computes and what all devices could."""
    flops = count_flops(model, plan.model_config, plan.lengths)
    tflops = recipe.logging.peak_tflops or known_peak_tflops(device_name(), plan.precision)
    return Throughput(
        model_flops_per_token=None if flops is None else flops.model,
        peak_flops=None if tflops is None else tflops * 1e12 * ranks.world_size,
    )
