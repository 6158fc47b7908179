"""The recipe: everything one training run is made of, as a tree of dataclasses.

Sections stand beside the component that owns them; only what has no other owner is declared here.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from presence_ds.data import DataConfig
from presence_ds.engine.config import PresenceConfig
from presence_ds.errors import ConfigError
from presence_ds.resources import resource
from presence_ds.sections import check_ranges, limited
from presence_ds.trainer.building.learning_rate_config import LearningRateConfig
from presence_ds.trainer.building.model_config import ModelConfig
from presence_ds.trainer.building.optimizer_config import OptimizerConfig
from presence_ds.trainer.callbacks.anomalies_config import AnomaliesConfig
from presence_ds.trainer.callbacks.evaluation_config import EvaluationConfig
from presence_ds.trainer.callbacks.profiler_config import ProfilerConfig
from presence_ds.trainer.callbacks.reference_config import ReferenceConfig
from presence_ds.trainer.checkpoint.config import CheckpointConfig
from presence_ds.trainer.ranks.health_config import HealthConfig
from presence_ds.trainer.ranks.stop_config import StopConfig
from presence_ds.trainer.trackers.tensorboard_config import TensorboardConfig
from presence_ds.trainer.trackers.trackio_config import TrackioConfig
from presence_ds.trainer.trackers.wandb_config import WandbConfig


@dataclass
class TrainingConfig:
    """Length of the run, batch sizes and precision. What DeepSpeed needs of it is passed on to DeepSpeed.

    Args:
        steps: Optimizer steps of the whole run.
        micro_batch_size: Samples per rank in one forward and backward.
        gradient_accumulation_steps: Micro-steps per optimizer step. Give this or global_batch_size; with neither it
            is 1.
        global_batch_size: Samples per optimizer step over all ranks; a multiple of micro_batch_size times the number
            of ranks.
        gradient_clipping: Largest norm of the whole gradient; null leaves it alone.
        precision: auto is bf16 where every rank's hardware computes in it, otherwise fp32. fp16, with dynamic loss
            scaling, is for accelerators without bf16. Optimizer states are float32 in all of them.
        seed: Seed of the model's weights and of dropout.
    """

    steps: int = limited(1000, least=1)
    micro_batch_size: int = limited(8, least=1)
    gradient_accumulation_steps: int | None = limited(None, least=1)
    global_batch_size: int | None = limited(None, least=1)
    gradient_clipping: float | None = limited(1.0, above=0)
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    seed: int = limited(0, least=0, most=2**32 - 1)

    def validate(self, field: str) -> None:
        """Raise `ConfigError` if the batch is stated twice."""
        if self.gradient_accumulation_steps is not None and self.global_batch_size is not None:
            raise ConfigError(
                f"{field}.gradient_accumulation_steps and {field}.global_batch_size are both set: give one of them"
            )

    def accumulation_steps(self, world_size: int) -> int:
        """Micro-steps per optimizer step on ``world_size`` ranks.

        Raises:
            ConfigError: global_batch_size is no multiple of what the ranks take in one micro-step.
        """
        if self.global_batch_size is None:
            return self.gradient_accumulation_steps or 1
        samples = self.micro_batch_size * world_size
        if self.global_batch_size % samples != 0:
            raise ConfigError(
                f"training.global_batch_size is {self.global_batch_size}, which does not divide: it must be a multiple "
                f"of {samples} (micro_batch_size {self.micro_batch_size} x {world_size} ranks)"
            )
        return self.global_batch_size // samples


@dataclass
class LoggingConfig:
    """What is written down while training.

    Args:
        every_steps: Optimizer steps between two lines of metrics.jsonl, the console and trackers.
        score_records: Write loss, self-influence, alignment and weight of every sample to scores/ (parquet).
        peak_tflops: What one device could compute at best in the run's precision, in 10^12 floating-point operations
            per second; mfu is measured against it. null: known for common devices in bf16 and fp16, and no mfu for
            others.
    """

    every_steps: int = limited(10, least=1)
    score_records: bool = True
    peak_tflops: float | None = limited(None, above=0)


@dataclass
class Recipe:
    """One training run.

    Args:
        data: The text, its tokenizer, and how it is packed.
        run_dir: Where the run leaves everything it writes. null: runs/NAME-DATE-TIME in the working directory, NAME
            being the recipe file's. To be able to resume, name it.
        model: The model.
        deepspeed: The DeepSpeed JSON file. Relative to the recipe file or to the working directory, or one that the
            package has: ds_configs/zero1.json, zero2.json, zero3.json or zero3_offload.json.
        presence: Self-influence guided reweighting.
        reference: The trusted stream that samples are compared with.
        optimizer: The optimizer.
        lr_schedule: The learning rate over the run.
        training: Length, batch sizes, precision, seed.
        evaluation: Loss on the validation split.
        checkpoint: Saving and resuming.
        health: A check of devices and links before the run.
        stop: Ending the run early.
        anomalies: Steps that went wrong, and how many of them end the run.
        logging: Metrics and score records.
        profiler: What the operators of a few steps take.
        wandb: Weights & Biases.
        tensorboard: TensorBoard.
        trackio: Trackio.
    """

    data: DataConfig
    run_dir: str | None = None
    model: ModelConfig = field(default_factory=ModelConfig)
    deepspeed: str = "ds_configs/zero2.json"
    presence: PresenceConfig = field(default_factory=PresenceConfig)
    reference: ReferenceConfig = field(default_factory=ReferenceConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    lr_schedule: LearningRateConfig = field(default_factory=LearningRateConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    health: HealthConfig = field(default_factory=HealthConfig)
    stop: StopConfig = field(default_factory=StopConfig)
    anomalies: AnomaliesConfig = field(default_factory=AnomaliesConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    profiler: ProfilerConfig = field(default_factory=ProfilerConfig)
    wandb: WandbConfig = field(default_factory=WandbConfig)
    tensorboard: TensorboardConfig = field(default_factory=TensorboardConfig)
    trackio: TrackioConfig = field(default_factory=TrackioConfig)

    def validate(self) -> None:
        """Check every value that can be checked without reading other files or knowing the number of ranks.

        Fills presence.schedule.training_steps with training.steps where the weights have a schedule.

        Raises:
            ConfigError: the first value that cannot be used, in one line naming its field.
        """
        check_ranges(self)
        if self.run_dir == "":
            raise ConfigError("run_dir is empty: it must be the path of a directory, or null")
        self.training.validate("training")
        schedule = self.presence.schedule
        if schedule.training_steps not in (None, self.training.steps):
            raise ConfigError(
                f"presence.schedule.training_steps is {schedule.training_steps}, but training.steps is "
                f"{self.training.steps}: leave it out, the trainer fills it in"
            )
        self.presence.fill_training_steps(self.training.steps)
        self.presence.validate("presence")
        self.model.validate("model")
        self.use_tokenizer_of_model()
        self.data.validate("data")
        if self.presence.granularity == "document" and not self.data.document_mask:
            raise ConfigError(
                "presence.granularity is document with data.document_mask false, where the documents of a sample see "
                "each other: set it true, or use granularity sample"
            )
        names = [source.name for source in self.data.sources]
        self.reference.validate("reference", self.presence, names)
        if self.reference.sources and self.data.streaming is not None:
            raise ConfigError(
                "reference.sources is set with data.streaming, which stores no samples to compare with: use another "
                "presence.signal, or leave data.streaming out"
            )
        if self.model.activation_checkpointing and self.presence.strategy == "one_pass":
            raise ConfigError(
                "model.activation_checkpointing is true with presence.strategy one_pass, which keeps every activation: "
                "use two_pass"
            )
        self.optimizer.validate("optimizer")
        self.lr_schedule.validate("lr_schedule", self.training.steps)
        self.stop.validate("stop")
        self.anomalies.validate("anomalies")
        self.profiler.validate("profiler", self.training.steps)
        self.tensorboard.validate("tensorboard")
        self.trackio.validate("trackio")

    def use_tokenizer_of_model(self) -> None:
        """Have pretrained weights train with the tokenizer beside them, unless another is named.

        Call it before ``data`` is validated, which fills in the size of a tokenizer to be trained.

        Raises:
            ConfigError: one is to be trained.
        """
        model, tokenizer = self.model, self.data.tokenizer
        if not model.is_pretrained or tokenizer.path is not None or self.data.prepared is not None:
            return
        if tokenizer.vocab_size is not None:
            raise ConfigError(
                f"data.tokenizer.vocab_size is {tokenizer.vocab_size}, so that one is trained, and the weights "
                f"of model.path {model.path} know the tokens of their own: leave it out, or set model.from_scratch"
            )
        tokenizer.path = model.source


def find_beside_recipe(path: str, recipe_file: Path | None, field: str) -> Path:
    """The absolute path of a file that a recipe names: beside the recipe, in the working directory, or the package's.

    Raises:
        ConfigError: it is nowhere there.
    """
    candidates = [Path(path).expanduser()]
    if recipe_file is not None:
        candidates.insert(0, recipe_file.parent / candidates[0])
    for candidate in [*candidates, resource(path)]:
        if candidate.is_file():
            return candidate.resolve()
    places = " nor ".join(str(candidate.absolute().parent) for candidate in dict.fromkeys(candidates))
    raise ConfigError(f"{field} is {path}: there is no such file in {places}")
