"""The short form of `python -m benchmarks.score`."""

import pytest

from benchmarks import score
from benchmarks.score import measure, report, summary
from benchmarks.setting import Setting

TINY = Setting(hidden_size=64, layers=2, vocabulary=300, sequence_length=24, threads=1, keep_freed=True)


def test_every_variant_is_clocked_with_the_memory_of_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    environments = []

    def run_module(*arguments: object) -> dict[str, list[float]]:
        environments.append(arguments[-1])
        return run(*arguments)

    run = score.run_module
    monkeypatch.setattr(score, "run_module", run_module)
    found = measure(TINY, batches=2, pairs=2)
    assert environments == [TINY.environment()]
    assert "MALLOC_MMAP_MAX_" in TINY.environment()
    assert len(found) == 4
    assert all(row["samples_per_second"] > 0 for row in found.values())


def test_what_disturbs_a_few_stretches_does_not_count() -> None:
    seconds = {"bare": [1.0, 1.0, 5.0, 1.0, 9.0], "scores": [2.0, 2.0, 2.0, 8.0, 2.0]}
    found = summary(seconds, samples=4)
    assert found["bare"] == {"samples_per_second": 4.0, "ratio": 1.0, "quartiles": [1.0, 1.0]}
    assert found["scores"] == {"samples_per_second": 2.0, "ratio": 0.5, "quartiles": [0.5, 2.5]}
    assert report(found).splitlines()[3] == "| scores | 2.0 | 0.50 | 0.50–2.50 |"
