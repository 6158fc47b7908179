"""What an optimizer step's samples were weighed by."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from presence_ds.reweighting.samples import Samples


@dataclass(frozen=True)
class StepWeights:
    """Result of a finished optimizer step.

    Attributes:
        local: [G·b] float32 on the host, final weights of this rank's samples in the order they were seen; over all
            ranks they sum to 1.
        terms: [G·b] float64 on the host, the unnormalised weights u they come from; 0 for samples that are not finite
            or have no targets.
        total_sketch: [m] float32 on the device, the sum of the sketches of all samples that count; None as well.
        mean_term: Z/N, mean of u over all N samples of the step, on every rank; 0 if no sample has targets.
        tell: works out `statistics`.
        samples: all N of the step, of every rank, as on every other rank.
        weights: [N] float64 on the host, theirs; they sum to 1, or are 0 if no sample has targets.
        own: those of ``samples`` that are this rank's, G·b in the order they were seen.
    """

    local: Tensor
    terms: Tensor
    total_sketch: Tensor | None
    mean_term: float
    tell: Callable[[], dict[str, Any]]
    samples: Samples
    weights: Tensor
    own: Samples

    @property
    def statistics(self) -> dict[str, Any]:
        """What `describe` gives, and more.

        Beside it ``step``; ``tau`` (as used; 0 with signal uniform), ``stage``; ``tau_scheduled`` with a floor under
        the effective sample size; ``switch_step`` once schedule auto has decided; ``normalizer_mean`` and
        ``normalizer_std`` or ``clip_level``, which samples were weighed by; ``near_duplicate_share``;
        ``calibration_strength`` (0 to 1, how far calibrated weights were followed); with alignments
        ``gradient_sq_norm`` and ``gradient_noise`` (‖G‖² and tr Σ of the step, without bias) and ``noise_scale``
        (B_noise of late, in samples) with ``noise_scale_tokens``. A figure that does not apply is absent: weighting
        clip has no ``tau``, normalizer rank no moments, and a step in which no sample has targets nothing but ``step``
        and counts.
        """
        return self.tell()
