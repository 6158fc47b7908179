"""A cell as a recipe for `presence train`, and what tells it from every other one."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

from study.arms import ARMS
from study.plan import Cell, Plan, Shape
from study.texts import TEXTS, Text

DIGITS = 16  # of a key
HEAD_WIDTH = 32
WATCHING = ("evaluation", "checkpoint", "logging")  # sections that do not change what is trained


def has_noise(cell: Cell) -> bool:
    """Whether there is noise in what the run of ``cell`` reads."""
    return bool(TEXTS[cell.text].noise) and not ARMS[cell.arm].oracle


def data_section(plan: Plan, cell: Cell, texts: Path) -> dict[str, Any]:
    """What the corpus of ``cell`` is made of; it is the same for all seeds."""
    return {
        **TEXTS[cell.text].data_section(texts, plan.text_scale, with_noise=has_noise(cell)),
        "validation_fraction": plan.validation_fraction,
        "max_bad_share": 0.05,  # pages without boilerplate
        "sequence_length": plan.length,
        "tokenizer": {"vocab_size": plan.vocabulary},
    }


def recipe(plan: Plan, cell: Cell, corpus: Path) -> dict[str, Any]:
    """All of a recipe but ``run_dir``; ``corpus`` is a prepared one."""
    shape, arm, text = plan.shapes[cell.shape], ARMS[cell.arm], TEXTS[cell.text]
    batch = cell.batch
    if arm.oracle:
        batch = round(batch * (1.0 - text.noise_share))
    micro_steps = -(-batch // (arm.micro_batch or plan.micro_batch))
    fields: dict[str, Any] = {
        "model": {"config": (_llama if text.is_causal else _mt5)(shape, plan.length)},
        "data": {"prepared": str(corpus), "seed": cell.seed} | _weights(text if has_noise(cell) else None),
        "deepspeed": "ds_configs/zero1.json",
        "presence": arm.presence,
        "optimizer": {"kind": "adamw", "lr": cell.rate},
        "lr_schedule": {"kind": "cosine", "warmup_steps": plan.warmup_steps, "min_ratio": 0.0},
        "training": {
            "steps": cell.steps,
            "micro_batch_size": batch // micro_steps,
            "gradient_accumulation_steps": micro_steps,
            "precision": plan.precision,
            "seed": cell.seed,
        },
        "evaluation": {"every_steps": -(-cell.steps // plan.evaluations), "by_frequency": True},
        "checkpoint": {"every_steps": None, "at_end": False},
        "logging": {"every_steps": 10},
    }
    return fields | {section: fields.get(section, {}) | values for section, values in arm.sections.items()}


def _llama(shape: Shape, length: int) -> dict[str, Any]:
    heads = max(1, shape.width // HEAD_WIDTH)
    return {
        "model_type": "llama",
        "hidden_size": shape.width,
        "intermediate_size": _feed_forward(shape),
        "num_hidden_layers": shape.layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "max_position_embeddings": length,
        "tie_word_embeddings": True,
        "initializer_range": shape.logits / math.sqrt(shape.width),
    }


def _mt5(shape: Shape, _: int) -> dict[str, Any]:
    return {
        "model_type": "mt5",
        "d_model": shape.width,
        "d_kv": HEAD_WIDTH,
        "d_ff": _feed_forward(shape),
        "num_layers": shape.layers // 2,
        "num_heads": max(1, shape.width // HEAD_WIDTH),
        "feed_forward_proj": "gated-gelu",
        "dropout_rate": 0.0,
    }


def _feed_forward(shape: Shape) -> int:
    return -(-shape.width * 8 // 3 // 32) * 32


def _weights(text: Text | None) -> dict[str, Any]:
    """Fields of ``data`` for shares that sizes do not say."""
    if text is None or text.weights is None:
        return {}
    return {"sources": [{"name": name, "weight": weight} for name, weight in text.weights.items()]}


def trained(fields: dict[str, Any]) -> dict[str, Any]:
    """What of a recipe decides on the model at the end."""
    return {name: values for name, values in fields.items() if name not in WATCHING}


def key(protocol: int, *parts: Any) -> str:
    """The same for the same plain values; what a change of any of them changes."""
    text = json.dumps([protocol, *parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]
