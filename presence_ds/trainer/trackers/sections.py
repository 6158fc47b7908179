"""By what names trackers show the figures of metrics.jsonl: in sections, ``section/figure``.

The names in metrics.jsonl stay, for whoever reads those of earlier runs.
"""

from collections.abc import Mapping
from typing import Any

from presence_ds.trainer.callbacks.metrics_file import json_value

SECTIONS = ("train", "validation", "presence", "gain", "sources", "throughput", "system")
AXES = ("step", "tokens", "hours")  # that the others are drawn over, and shown by these names
NAMES = {
    **{name: name for name in AXES},
    **{
        name: f"train/{name}"
        for name in (
            *("loss", "weighted_loss", "auxiliary_loss", "learning_rate", "gradient_norm", "epoch"),
            *("samples", "samples_without_targets", "nonfinite_samples"),
            *("nonfinite_steps", "skipped_steps", "loss_spikes", "gradient_spikes"),
        )
    },
    **{
        name: f"presence/{name}"
        for name in (
            *("stage", "tau", "tau_scheduled", "switch_step", "clip_level", "calibration_strength"),
            *("normalizer_mean", "normalizer_std", "si_mean", "si_variance", "si_min", "si_max"),
            *("effective_sample_size", "max_weight", "near_duplicate_share"),
        )
    },
    **{name: f"gain/{name}" for name in ("gradient_sq_norm", "gradient_noise", "noise_scale", "noise_scale_tokens")},
    "throughput(tokens/s)": "throughput/tokens_per_second",
    "step_time(s)": "throughput/step_seconds",
    "eta(s)": "throughput/eta_seconds",
    "data_wait_share": "throughput/data_wait_share",
    "mfu": "throughput/mfu",
    "scoring_share": "throughput/scoring_share",
    "memory/peak(GiB)": "system/memory_peak_gib",
    "slurm_restart_count": "system/slurm_restart_count",
}
FAMILIES = {"validation/": "validation/", "gain/": "gain/", "source/": "sources/"}  # by how names begin
SELF_INFLUENCE = "presence/log10_self_influence"  # histograms, which metrics.jsonl has none of
RELATIVE_WEIGHT = "presence/relative_weight"
SAMPLE_LOSS = "train/sample_loss"
SAMPLES = "presence/samples"  # the table
VALIDATION_LOSS, LOWEST_LOSS = "validation/loss", "validation/lowest_loss"  # the other is of trackers alone


def shown_name(name: str) -> str | None:
    """What trackers call the figure ``name`` of metrics.jsonl; None of one that no section has."""
    if name in NAMES:
        return NAMES[name]
    family = next((family for family in FAMILIES if name.startswith(family)), None)
    return None if family is None else FAMILIES[family] + name.removeprefix(family)


def sectioned(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """A line of metrics.jsonl by shown names; a figure of another version that no section has is among ``system/``.

    Bytes of a source's name that are not UTF-8 stand as ``\\udce9``: not every tracker takes them.
    """
    shown = ((shown_name(name) or f"system/{name}", value) for name, value in metrics.items())
    return {name.encode("utf-8", "backslashreplace").decode(): json_value(value) for name, value in shown}
