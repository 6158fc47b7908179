"""What a dashboard shows, section by section: plots of figures by the names of `sections`."""

from typing import NamedTuple

from presence_ds.trainer.trackers.sections import RELATIVE_WEIGHT, SAMPLE_LOSS, SELF_INFLUENCE

COLUMNS = 3  # of a section
WEIGHTINGS = "in_use|paper_direct|paper_inverse|clip|normalized|loss_saturating|calibrated"


class Plot(NamedTuple):
    """Lines over the steps, or over another axis.

    Attributes:
        y: names of figures; a pattern where there is one of every source, or of every weighting.
        grouped: show the mean of the runs of each group, and its band; a heatmap of histograms is of one run.
    """

    title: str
    y: tuple[str, ...] = ()
    pattern: str | None = None
    x: str = "step"
    log_y: bool = False
    grouped: bool = True


class PanelSection(NamedTuple):
    """Plots that belong together, and what they are for."""

    name: str
    text: str
    plots: tuple[Plot, ...]


PANELS = (
    PanelSection(
        "Loss",
        "Does it learn, and do the weights help? Validation loss over steps, over tokens, and over hours, which count "
        "what scoring costs.",
        (
            Plot("validation loss", ("validation/loss",)),
            Plot("validation loss by tokens", ("validation/loss",), x="tokens"),
            Plot("validation loss by hours", ("validation/loss",), x="hours"),
            Plot("validation loss of each source", pattern="^validation/.+/loss$"),
            Plot("training loss", ("train/loss", "train/weighted_loss")),
            Plot("loss of samples", (SAMPLE_LOSS,), grouped=False),
        ),
    ),
    PanelSection(
        "Weights",
        "What the weights do: how unequal they are, and what they rest on. An effective sample size far below the "
        "number of samples means that few samples make the update.",
        (
            Plot("weight, in units of the mean", (RELATIVE_WEIGHT,), grouped=False),
            Plot("log10 of the self-influence", (SELF_INFLUENCE,), grouped=False),
            Plot("largest weight", ("presence/max_weight",), log_y=True),
            Plot("self-influence", ("presence/si_mean", "presence/si_max"), log_y=True),
            Plot("temperature, calibration", ("presence/tau", "presence/calibration_strength")),
            Plot("near-duplicates", ("presence/near_duplicate_share",)),
        ),
    ),
    PanelSection(
        "Gain",
        "What the weights are expected to be worth, in batch size: above 1 they help. Weights matter while the noise "
        "scale is not far below the samples of a step.",
        (
            Plot(
                "effective sample size, noise scale, expected gain",
                ("presence/effective_sample_size", "gain/noise_scale", "gain/in_use"),
                log_y=True,
            ),
            Plot("expected gain of the weights in use", ("gain/in_use", "gain/in_use_speedup")),
            Plot("expected gain of every weighting", pattern=f"^gain/({WEIGHTINGS})$"),
            Plot("gradient: signal and noise", ("gain/gradient_sq_norm", "gain/gradient_noise"), log_y=True),
        ),
    ),
    PanelSection(
        "Sources",
        "Which data is favoured: each source's share of the update beside its share of the tokens (flagged above twice "
        "that), its mean weight, and what it is worth; below 0.5 training is faster without it.",
        (
            Plot("share of the update", pattern="^sources/.+/update_share$"),
            Plot("share of the tokens", pattern="^sources/.+/token_share$"),
            Plot("update more than twice the tokens", pattern="^sources/.+/outsized$"),
            Plot("mean weight", pattern="^sources/.+/mean_weight$"),
            Plot("worth over noise", pattern="^sources/.+/worth$"),
            Plot("loss", pattern="^sources/.+/loss$"),
        ),
    ),
    PanelSection(
        "Stability",
        "Is it stable: gradient norms, spikes, samples that were left out, steps that were skipped.",
        (
            Plot("gradient norm", ("train/gradient_norm",), log_y=True),
            Plot("spikes", ("train/loss_spikes", "train/gradient_spikes")),
            Plot("steps skipped, samples not finite", ("train/skipped_steps", "train/nonfinite_steps")),
            Plot("samples left out", ("train/nonfinite_samples", "train/samples_without_targets")),
            Plot("learning rate", ("train/learning_rate",)),
        ),
    ),
    PanelSection(
        "Cost",
        "What it costs: speed, the part of the work that is scoring (where FLOPs can be counted), memory.",
        (
            Plot("tokens per second", ("throughput/tokens_per_second",)),
            Plot("seconds per step", ("throughput/step_seconds",)),
            Plot("scoring, part of the FLOPs", ("throughput/scoring_share",)),
            Plot("FLOPs utilisation, waiting for data", ("throughput/mfu", "throughput/data_wait_share")),
            Plot("peak memory (GiB)", ("system/memory_peak_gib",)),
        ),
    ),
)
