"""The clock, run on a clock of the test's own."""

from types import SimpleNamespace
from typing import Any

import pytest

from presence_ds.trainer.building.device import known_peak_tflops
from presence_ds.trainer.callbacks.throughput import TIMINGS, Throughput

MODULE = "presence_ds.trainer.callbacks.throughput.time.perf_counter"


def run(throughput: Throughput, steps: int, monkeypatch: pytest.MonkeyPatch, now: float = 0.0) -> list[dict[str, Any]]:
    """Steps of 2 s, of which 0.5 s wait for data, and then 1 s of evaluation; logged every second step."""
    trainer: Any = SimpleNamespace(step=0, waited=0.0, step_tokens=100, total_steps=steps)
    lines = []
    monkeypatch.setattr(MODULE, lambda: now)
    throughput.on_train_start(trainer)
    for _ in range(steps):
        now += 2.0
        trainer.waited += 0.5
        trainer.step += 1
        metrics: dict[str, Any] = {}
        throughput.on_step(trainer, metrics)
        now += 1.0
        if trainer.step % 2 == 0:
            throughput.on_log(trainer, metrics)
            lines.append(metrics)
        throughput.on_step_end(trainer)
    return lines


def test_figures_are_means_over_the_steps_since_the_last_line(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = run(Throughput(6e9, peak_flops=1e12, scoring_share=0.25), 6, monkeypatch)
    for line, left in zip(lines, (4, 2, 0), strict=True):
        assert set(line) == set(TIMINGS)
        assert line["throughput(tokens/s)"] == 50.0
        assert line["step_time(s)"] == 2.0
        assert line["data_wait_share"] == 0.25
        assert line["mfu"] == pytest.approx(50 * 6e9 / 1e12)
        assert line["scoring_share"] == 0.25
        assert line["eta(s)"] == 3.0 * left  # evaluation counts: the run takes it too
        assert line["hours"] == (3.0 * (6 - left)) / 3600.0


def test_without_a_known_peak_there_is_no_utilisation(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = run(Throughput(6e9, None), 2, monkeypatch)
    assert set(lines[0]) == set(TIMINGS) - {"mfu", "scoring_share"}


def test_a_resumed_clock_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = Throughput(), Throughput()
    run(before, 4, monkeypatch)
    after.load_state_dict(before.state_dict())
    assert after.tokens_per_second == 50.0
    (line,) = run(after, 2, monkeypatch, now=1000.0)  # nothing ran in the time between
    assert line["throughput(tokens/s)"] == 50.0
    assert line["hours"] == (12.0 + 6.0) / 3600.0
    assert after.steps == 4  # the first step of each process is left out


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("NVIDIA H100 80GB HBM3", 989.5),
        ("NVIDIA H100 PCIe", 756.5),
        ("NVIDIA H200", 989.5),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA L40S", 362.0),
        ("Tesla V100-PCIE-16GB", 112.0),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None),
        ("NVIDIA RTX A4000", None),
        ("cpu", None),
    ],
)
def test_peaks_of_known_devices(device: str, expected: float | None) -> None:
    assert known_peak_tflops(device, "bf16") == expected
    assert known_peak_tflops(device, "fp32") is None
