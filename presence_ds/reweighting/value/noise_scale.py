"""The gradient noise scale: up to how many samples a larger step pays (McCandlish et al., arXiv 1812.06162)."""

from typing import Any

DECAY = 0.98  # of the sums, per optimizer step of a run in progress


class NoiseScale:
    """B_noise = tr Σ / ‖G‖² of unbiased estimates of every step, as a ratio of decaying sums, never a mean of ratios.

    Steps enter in their `Unit`.

    With decay 1 all steps count alike: the noise scale of a stretch of a past run, to go with gains that are means over
    the same steps. A run in progress asks for the present one, which grows as gradients shrink.
    """

    def __init__(self, decay: float = DECAY) -> None:
        """``decay`` of the sums, per optimizer step, at most 1."""
        self._decay = decay
        self._signal = self._noise = self._tokens = self._weight = 0.0

    def update(self, signal: float, noise: float, tokens: float) -> None:
        """Take in a step's ‖G‖² and tr Σ, without bias, in its unit, and the mean target tokens of a sample."""
        self._tokens = self._decay * self._tokens + tokens
        self._weight = self._decay * self._weight + 1.0
        self._signal = self._decay * self._signal + signal
        self._noise = self._decay * self._noise + noise

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
        return {"signal": self._signal, "noise": self._noise, "tokens": self._tokens, "weight": self._weight}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._signal, self._noise = state["signal"], state["noise"]
        self._tokens, self._weight = state["tokens"], state["weight"]
