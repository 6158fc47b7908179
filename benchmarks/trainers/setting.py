"""What is varied in the comparison of trainers, and the recipe of one setting."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.ranks import ROOT
from benchmarks.setting import Setting
from presence_ds.commands.recipe_arguments import read_recipe, resolved_recipe
from presence_ds.commands.train import make_parser
from presence_ds.trainer.recipe.recipe import Recipe
from presence_ds.trainer.run_directory.layout import RunDirectory


@dataclass(frozen=True)
class TrainerSetting(Setting):
    """A model, its data, and how both are trained.

    Args:
        accumulation_steps: Micro-steps per optimizer step.
        turn_steps: Optimizer steps that a trainer takes before it is another one's turn; ``steps`` is a multiple.
        log_every_steps: Optimizer steps between two logs of every trainer.
        megabytes: Text of the corpus: docstrings and code of the installed Python packages, half each.
    """

    accumulation_steps: int = 1
    turn_steps: int = 5
    log_every_steps: int = 10
    megabytes: float = 8.0

    @property
    def total_steps(self) -> int:
        """Steps of every trainer, the first ones included, which are not measured."""
        return self.warmup + self.steps

    @property
    def tokens_per_step(self) -> int:
        """Tokens of an optimizer step over all ranks."""
        return self.batch_size * self.accumulation_steps * self.ranks * self.sequence_length

    def rests_after(self, step: int) -> bool:
        """Whether a trainer's turn ends with optimizer step ``step``, counted from 1."""
        return step >= self.warmup and (step - self.warmup) % self.turn_steps == 0

    def recipe(self, run_dir: Path, **presence: Any) -> tuple[Recipe, dict[str, Any]]:
        """The recipe of a run, as `presence train` reads it, and the same as plain values.

        Args:
            run_dir: exists; ``recipe.yaml`` is written there.
            presence: fields of the section, beside ``projection_dim`` and the paper's preset.
        """
        config = {name: value for name, value in self.llama().items() if name != "vocab_size"}
        source = {"format": "python_packages", "max_megabytes": self.megabytes / 2}
        values = {
            "run_dir": str(run_dir),
            "model": {"config": config | {"model_type": "llama"}},
            "data": {
                "sources": [source | {"name": name, "content": name} for name in ("docstrings", "code")],
                "validation_fraction": 0.0,
                "sequence_length": self.sequence_length,
                "tokenizer": {"vocab_size": self.vocabulary},
            },
            "deepspeed": str(ROOT / "ds_configs" / f"zero{self.stage}.json"),
            "presence": {"preset": "paper", "projection_dim": self.projection_dim} | presence,
            "optimizer": {"kind": "adamw", "lr": 1e-4, "implementation": "fused"},
            "lr_schedule": {"kind": "constant", "warmup_steps": 0},
            "training": {
                "steps": self.total_steps,
                "micro_batch_size": self.batch_size,
                "gradient_accumulation_steps": self.accumulation_steps,
                "gradient_clipping": 1.0,
                "precision": "bf16" if self.precision == "bf16" else "fp32",
            },
            "checkpoint": {"every_steps": None, "at_end": False},
            "logging": {"every_steps": self.log_every_steps},
        }
        file = RunDirectory(run_dir).recipe
        own = file.with_suffix(f".{os.getpid()}")
        own.write_text(yaml.safe_dump(values), encoding="utf-8")
        own.replace(file)  # every rank writes the same, and reads a whole file
        parser = make_parser()
        parsed = parser.parse_args([str(file)])
        recipe, recipe_file = read_recipe(parser, parsed)
        return recipe, resolved_recipe(parser, parsed, recipe, recipe_file)
