"""The gradient noise scale: up to how many samples a larger step pays (McCandlish et al., arXiv 1812.06162)."""

from typing import Any

from presence_ds.reweighting.weight_functions import RunningLevel

DECAY = 0.98  # of the sums, per optimizer step of a run in progress


class NoiseScale:
    """B_noise = tr Σ / ‖G‖² of unbiased estimates of every step, as a ratio of decaying sums, never a mean of ratios.

    Gradients shrink by orders of magnitude early in training, so that steps enter in units of what steps before them
    let expect; those do not depend on the step, which leaves numerator and denominator without bias.

    With decay 1 all steps count alike: the noise scale of a stretch of a past run, to go with gains that are means over
    the same steps. A run in progress asks for the present one, which grows as gradients shrink.
    """

    def __init__(self, decay: float = DECAY) -> None:
        """``decay`` of the sums, per optimizer step, at most 1."""
        self._decay = decay
        self._level = RunningLevel()
        self._signal = self._noise = self._tokens = self._weight = 0.0

    def update(self, signal: float, noise: float, tokens: float) -> None:
        """Take in a step's ‖G‖² and tr Σ, both without bias, and its mean number of target tokens in a sample."""
        total = signal + noise  # the mean squared norm
        level = self._level.current or total
        if total > 0.0:
            self._level.update(total)
        self._tokens = self._decay * self._tokens + tokens
        self._weight = self._decay * self._weight + 1.0
        if level > 0.0:
            self._signal = self._decay * self._signal + signal / level
            self._noise = self._decay * self._noise + noise / level

    @property
    def samples(self) -> float | None:
        """B_noise in samples; None where the mean gradient cannot be told from nothing."""
        return max(self._noise, 0.0) / self._signal if self._signal > 0.0 else None

    @property
    def tokens_per_sample(self) -> float:
        """Target tokens of a sample, in the mean."""
        return self._tokens / self._weight if self._weight else 0.0

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, for the checkpoint."""
        sums = {"signal": self._signal, "noise": self._noise, "tokens": self._tokens, "weight": self._weight}
        return sums | {"level": self._level.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._signal, self._noise = state["signal"], state["noise"]
        self._tokens, self._weight = state["tokens"], state["weight"]
        self._level.load_state_dict(state["level"])
