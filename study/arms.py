"""What samples are weighed by in each arm of the study: fields of a recipe, beside which arms are alike."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        title: for a reader of tables.
        presence: fields of the recipe's ``presence`` section.
        sections: fields of other sections, by section.
        micro_batch: samples of a micro-batch; None: as many as go.
        oracle: the noisy sources are left out, and the batch is smaller by their share: what weights of 0 come to.
        gain: name under which `presence gain` foretells what its weights are worth.
        keeps: arguments of `presence filter`, where training is on what it keeps of the text.
    """

    title: str
    presence: dict[str, Any] = field(default_factory=dict)
    sections: dict[str, dict[str, Any]] = field(default_factory=dict)
    micro_batch: int | None = None
    oracle: bool = False
    gain: str | None = None
    keeps: tuple[str, ...] = ()


def _weighting(kind: str, **fields: Any) -> dict[str, Any]:
    return {"weighting": {"kind": kind, **fields}}


def _paper(**fields: Any) -> dict[str, Any]:
    return {"preset": "paper", **fields}


def _constant(tau: float) -> dict[str, Any]:
    return {"kind": "constant", "tau_direct": tau}


# Trains as always, and learns what weights are worth.
UNIFORM: dict[str, Any] = {"signal": "uniform", "alignment": True}
CALIBRATED: dict[str, Any] = {"preset": "calibrated"}
TRUSTED = {"reference": {"sources": ["wiki"]}}
BASELINE, CLEAN = "uniform", "oracle"  # what all arms are compared with, and the one whose runs read no noise

ARMS = {
    "uniform": Arm("uniform", UNIFORM),
    "oracle": Arm("oracle: no noise, and as much less in a batch", UNIFORM, oracle=True),
    "calibrated": Arm("calibrated", CALIBRATED, gain="calibrated"),
    "calibrated-norm": Arm("calibrated on the norm alone", _weighting("calibrated", features=["norm"])),
    "calibrated-norm-loss": Arm("calibrated on norm and loss", _weighting("calibrated", features=["norm", "loss"])),
    "calibrated-source": Arm(
        "calibrated, with sources", _weighting("calibrated", features=["norm", "loss", "vocabulary", "source"])
    ),
    "calibrated-placebo": Arm("placebo of calibrated", _weighting("calibrated", placebo=True)),
    "clip": Arm("clip at the median", _weighting("clip"), gain="clip"),
    "clip-0.75": Arm("clip at the upper quartile", _weighting("clip", quantile=0.75)),
    "clip-0.9": Arm("clip at the 0.9 quantile", _weighting("clip", quantile=0.9)),
    "clip-placebo": Arm("placebo of clip", _weighting("clip", placebo=True)),
    "normalized": Arm("every gradient at one length", _weighting("normalized"), gain="normalized"),
    "paper": Arm("the paper's two stages", _paper()),
    "paper-direct": Arm("the paper's first stage alone", _paper(schedule=_constant(1.0)), gain="paper_direct"),
    "paper-inverse": Arm("the paper's second stage alone", _paper(schedule=_constant(-1.0)), gain="paper_inverse"),
    "paper-direct-2": Arm("first stage alone, τ = 2", _paper(schedule=_constant(2.0))),
    "paper-inverse-2": Arm("second stage alone, τ = −2", _paper(schedule=_constant(-2.0))),
    "paper-swapped": Arm("the paper's stages swapped", _paper(schedule={"tau_direct": -1.0, "tau_inverse": 1.0})),
    "paper-auto": Arm("the paper's stages, switched when the loss is slow", _paper(schedule={"kind": "auto"})),
    "paper-first": Arm("the paper's stages, first layers", _paper(layers="first")),
    "paper-log": Arm("the paper's stages, z-score of the logarithm", _paper(normalizer="log_zscore")),
    "paper-rank": Arm("the paper's stages, ranks", _paper(normalizer="rank")),
    "paper-placebo": Arm("placebo of the paper's stages", _paper(weighting={"placebo": True})),
    "loss-linear": Arm("high losses up: softmax, τ = 1", _paper(signal="loss", schedule=_constant(1.0))),
    "loss-saturating": Arm(
        "highest losses down",
        {"signal": "loss", **_weighting("saturating"), "schedule": _constant(-1.0)},
        gain="loss_saturating",
    ),
    "paper-microbatch": Arm(
        "the paper's stages, of microbatches of 4", _paper(granularity="microbatch", strategy="two_pass"), micro_batch=4
    ),
    "alignment": Arm(
        "aligned with encyclopedia up: softmax, τ = 1", _paper(signal="alignment", schedule=_constant(1.0)), TRUSTED
    ),
    "calibrated-reference": Arm(
        "calibrated for encyclopedia", _weighting("calibrated") | {"alignment_with": "reference"}, TRUSTED
    ),
    "uniform-reference": Arm(
        "uniform, asked what is good for encyclopedia", UNIFORM | {"alignment_with": "reference"}, TRUSTED
    ),
    "clipped-tensors": Arm(
        "uniform, every tensor's gradient clipped",
        UNIFORM,
        {"optimizer": {"kind": "clipped_tensors"}, "training": {"gradient_clipping": None}},
    ),
    "shrunk-entries": Arm(
        "uniform, entries of the gradient shrunk", UNIFORM, {"optimizer": {"kind": "shrunk_entries"}}
    ),
    "sequential": Arm("the paper's Sequential: lowest three quarters", UNIFORM, keeps=("--keep", "0.75")),
    "sequential-reverse": Arm(
        "Sequential reversed: highest three quarters", UNIFORM, keeps=("--keep", "0.75", "--reverse")
    ),
    "leverage": Arm("leverage down", _paper(signal="leverage", schedule=_constant(-1.0))),
}
