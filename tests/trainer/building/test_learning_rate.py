import math

import pytest
import torch

from presence_ds.errors import ConfigError
from presence_ds.trainer.building.learning_rate import LearningRateConfig, build_lr_scheduler, learning_rate_factor

STEPS, WARMUP, MIN, DECAY = 100, 10, 0.1, 20

CLOSED_FORMS = {
    "cosine": lambda s: MIN + (1 - MIN) * (1 + math.cos(math.pi * (s - WARMUP) / (STEPS - WARMUP))) / 2,
    "linear": lambda s: MIN + (1 - MIN) * (STEPS - s) / (STEPS - WARMUP),
    "inverse_sqrt": lambda s: max(MIN, math.sqrt(WARMUP / s)),
    "constant": lambda s: 1.0,
    "wsd linear": lambda s: 1 if s <= 80 else MIN + (1 - MIN) * (100 - s) / DECAY,
    "wsd cosine": lambda s: 1 if s <= 80 else MIN + (1 - MIN) * (1 + math.cos(math.pi * (s - 80) / DECAY)) / 2,
    "wsd sqrt": lambda s: 1 if s <= 80 else MIN + (1 - MIN) * (1 - math.sqrt((s - 80) / DECAY)),
}


@pytest.mark.parametrize("kind", list(CLOSED_FORMS))
def test_scheduler_follows_closed_form(kind: str) -> None:
    """What the optimizer uses at step s, counted from 1, is the base rate times the closed form."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    name, *shape = kind.split()
    fields = {"decay_steps": DECAY, "decay_shape": shape[0]} if shape else {}
    config = LearningRateConfig(kind=name, warmup_steps=WARMUP, min_ratio=MIN, **fields)  # type: ignore[arg-type]
    scheduler = build_lr_scheduler(optimizer, config, STEPS)
    for step in range(1, STEPS + 1):
        expected = step / WARMUP if step < WARMUP else CLOSED_FORMS[kind](step)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5 * expected, rel=1e-12)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("kind", ["cosine", "linear", "wsd"])
def test_decay_ends_at_min_ratio_on_the_last_step(kind: str) -> None:
    config = LearningRateConfig(kind=kind, warmup_steps=WARMUP, min_ratio=MIN)  # type: ignore[arg-type]
    assert learning_rate_factor(config, STEPS, STEPS) == pytest.approx(MIN)
    assert learning_rate_factor(config, WARMUP, STEPS) == 1.0


def test_wsd_decays_over_the_last_tenth_unless_told_otherwise() -> None:
    config = LearningRateConfig(kind="wsd", warmup_steps=WARMUP)
    config.validate("lr_schedule", STEPS)
    factors = [learning_rate_factor(config, step, STEPS) for step in range(WARMUP, STEPS + 1)]
    assert factors[:81] == [1.0] * 81  # steps 10 to 90
    assert factors[81] < 1.0


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {"kind": "wsd", "decay_steps": 91},
            r"decay_steps is 91: it must be, with lr_schedule.warmup_steps 10, at most the 100",
        ),
        ({"kind": "wsd", "warmup_steps": 100}, r"decay_steps is 10 by default"),
        ({"kind": "cosine", "decay_steps": 20}, r"decay_steps is 20 with kind cosine"),
    ],
)
def test_a_decay_that_does_not_fit_is_refused(fields: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError, match=rf"lr_schedule\.{expected}"):
        LearningRateConfig(**{"warmup_steps": WARMUP, **fields}).validate("lr_schedule", STEPS)  # type: ignore[arg-type]


def test_no_warmup_starts_at_the_base_rate() -> None:
    config = LearningRateConfig(kind="linear", warmup_steps=0, min_ratio=0.0)
    assert learning_rate_factor(config, 1, STEPS) == pytest.approx(1 - 1 / STEPS)


def test_inverse_sqrt_needs_a_warmup() -> None:
    with pytest.raises(ConfigError, match=r"lr_schedule\.warmup_steps is 0: inverse_sqrt"):
        LearningRateConfig(kind="inverse_sqrt", warmup_steps=0).validate("lr_schedule", STEPS)
