"""The options that are combined, and what a recipe says for a combination of them."""

from typing import Any

from presence_ds.engine import PresenceConfig
from presence_ds.errors import ConfigError
from presence_ds.reweighting import ScheduleConfig, WeightingConfig
from tests.combinations.covering import Accepts, Combination, Factors

STEPS = 2

# Each value is what it adds to the `presence` section.
PRESENCE: Factors = {
    "signal": [{}, *({"signal": name} for name in ("leverage", "alignment", "loss", "uniform"))],
    "normalizer": [{}, {"normalizer": "log_zscore"}, {"normalizer": "rank"}],
    "weighting": [
        {"preset": "paper"},
        {},
        {"weighting": {"kind": "softmax"}},
        {"weighting": {"kind": "saturating", "threshold": 0.5}},
        {"weighting": {"kind": "clip", "quantile": 0.8}},
        {"preset": "clip"},
        {"weighting": {"kind": "calibrated", "features": ["source", "loss", "length"]}},
        {"weighting": {"kind": "calibrated", "features": ["momentum", "vocabulary"]}},
        {"weighting": {"kind": "normalized", "placebo": True}},
        {"weighting": {"kind": "softmax", "placebo": True}},
        {"preset": "uniform"},
    ],
    "alignment": [{}, {"alignment": True}, {"alignment": True, "alignment_dim": 9}],
    "alignment_with": [{}, {"alignment_with": "reference"}],
    "schedule": [
        {},
        {"schedule": {"switch_step": 1}},
        *({"schedule": {"kind": kind}} for kind in ("constant", "linear", "cosine", "auto")),
    ],
    "granularity": [{}, *({"granularity": name} for name in ("microbatch", "global_microbatch", "document"))],
    "strategy": [{}, {"strategy": "two_pass"}],
    "statistics": [{}, {"statistics": "batch"}, {"statistics": "running"}],
    "estimator": [{"projection_dim": 4}, {"estimator": "exact"}],
    "floor": [{}, {"min_effective_share": 0.9}],
    "near_duplicates": [{}, {"near_duplicates": 0.9}],
    "layers": [{}, {"layers": "first"}, {"layers": ["*attn*"]}],
    "kernels": [{}, {"kernels": False}],
    "loss_normalizer": [{}, {"loss_normalizer": "sum"}, {"loss_normalizer": 229.0}],
}
TRAINING: Factors = {"accumulation": [1, 2], "stage": [2, 0, 1, 3], "precision": ["fp32", "bf16"], "ranks": [1, 2]}
DATA: Factors = {"document_mask": [False, True]}
TRACKERS: Factors = {  # wandb takes seconds: one of the runs has it
    "tracker": [
        {},
        {"tensorboard": {"enabled": True, "table_every": 1}},
        {"trackio": {"enabled": True, "table_every": 1, "sample_text": False}},
    ]
}
PROFILER: Factors = {"profiler": [{}, {"profiler": {"enabled": True, "first_step": 2, "steps": 1}}]}
EVALUATION: Factors = {"by_frequency": [False, True]}
TRAINER = PRESENCE | TRAINING | DATA | TRACKERS | PROFILER | EVALUATION

# A loop tells nobody how many steps there will be: the switch step is stated first.
LOOP = {
    **{
        name: PRESENCE[name]
        for name in ("signal", "weighting", "alignment", "alignment_with", "granularity", "strategy", "statistics")
    },
    "schedule": [{"schedule": {"switch_step": 1}}, {}, {"schedule": {"kind": "constant"}}],
    **TRAINING,
}
HUGGING_FACE = {
    "signal": [{}, *({"signal": name} for name in ("alignment", "loss", "uniform"))],
    "weighting": [PRESENCE["weighting"][index] for index in (0, 1, 5)],
    "alignment": PRESENCE["alignment"][:2],
    "schedule": [PRESENCE["schedule"][index] for index in (0, 2, 5)],
    "granularity": PRESENCE["granularity"][:3],
    "strategy": PRESENCE["strategy"],
    "stage": [2, 0, 3],
    **{name: TRAINING[name] for name in ("accumulation", "ranks")},
}


def section(factors: Factors, combination: Combination) -> dict[str, Any]:
    """The `presence` section of a combination."""
    merged: dict[str, Any] = {}
    for name in PRESENCE.keys() & combination.keys():
        merged |= factors[name][combination[name]]
    return merged


def value(factors: Factors, combination: Combination, name: str) -> Any:
    """What a combination has for one factor."""
    return factors[name][combination[name]]


def refusal(factors: Factors, combination: Combination) -> str | None:
    """What the configuration itself says against a combination; None if it is accepted."""
    try:
        config = PresenceConfig(**instantiated(section(factors, combination)))
        if factors is not LOOP:
            config.fill_training_steps(STEPS)
        config.validate()
        if config.granularity == "document" and factors is TRAINER and not value(factors, combination, "document_mask"):
            return (
                "presence.granularity is document with data.document_mask false, where the documents of a sample see "
                "each other: set it true, or use granularity sample"
            )
        config.uses_running_statistics(value(factors, combination, "accumulation"))
    except ConfigError as error:
        return str(error)
    return None


def accepts(factors: Factors) -> Accepts:
    """Whether the configuration takes a combination, as a function."""
    return lambda combination: refusal(factors, combination) is None


def instantiated(stated: dict[str, Any]) -> dict[str, Any]:
    """The fields of `PresenceConfig`; jsonargparse takes milliseconds for it."""
    kinds = {"schedule": ScheduleConfig, "weighting": WeightingConfig}
    return {name: kinds[name](**value) if name in kinds else value for name, value in stated.items()}


def describe(factors: Factors, combination: Combination) -> str:
    """A combination in one line, for whoever reads of a failure."""
    values = {name: factors[name][index] for name, index in combination.items()}
    stated = [str(value) for name, value in values.items() if name in PRESENCE and value]
    others = (TRAINING | DATA | TRACKERS | PROFILER | EVALUATION).keys() & values.keys()
    return ", ".join([f"{name} {values[name]}" for name in others] + stated)
