"""The short form of `python -m benchmarks.between_sweeps`."""

from benchmarks.ranks import run_module


def test_the_host_is_timed_between_the_sweeps() -> None:
    found = run_module("benchmarks.between_sweeps", {"layers": 2, "steps": 6}, 1, {"OMP_NUM_THREADS": "1"})
    assert 0.0 < found["least_ms"] <= found["median_ms"]
