"""``presence export RUN_DIR|CHECKPOINT OUTPUT``."""

from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser, Namespace

HELP = "Write a checkpoint's model as a Hugging Face folder."


def make_parser() -> ArgumentParser:
    """From where, to where, and how."""
    parser = ArgumentParser(
        exit_on_error=False, allow_abbrev=False, description=f"{HELP} Needs no GPU and starts no ranks."
    )
    parser.add_argument(
        "checkpoint",
        type=Path,
        help="A run directory (its newest complete checkpoint), one of its checkpoints/step_*, a checkpoint-N of "
        "PresenceTrainer, or what engine.save_checkpoint was given.",
    )
    parser.add_argument("output", type=Path, help="Folder to make; from_pretrained loads it.")
    parser.add_argument(
        "--dtype",
        type=Literal["fp32", "bf16", "fp16"],
        default="fp32",
        help="fp32 is the optimizer's own weights (at ZeRO stage 0, what the model computes with).",
    )
    parser.add_argument(
        "--tokenizer",
        type=Path | None,
        default=None,
        help="Folder of the tokenizer to put beside the model. null: the run directory's.",
    )
    parser.add_argument("--overwrite", action="store_true", help="Replace a model that is in the folder already.")
    return parser


def run(parser: ArgumentParser, parsed: Namespace, arguments: list[str]) -> None:
    """Export, and say in one line what was written."""
    from presence_ds.trainer.checkpoint.export import export

    model = export(
        parsed.checkpoint,
        parsed.output,
        dtype=parsed.dtype,
        tokenizer=parsed.tokenizer,
        overwrite=parsed.overwrite,
    )
    size = sum(parameter.numel() for parameter in model.parameters())
    print(f"{parsed.output}: {type(model).__name__}, {size:,} parameters, {parsed.dtype}, read back and compared")
