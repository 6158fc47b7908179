"""The short form of `python -m benchmarks.gain`."""

from pathlib import Path

from benchmarks.gain import measure, report


def test_made_up_records_are_those_of_a_run(tmp_path: Path) -> None:
    found = {64: measure(tmp_path, 200_000, 64)}
    assert found[64]["steps"] == 3125
    assert found[64]["seconds"] > 0
    assert "200,000" in report(found)
    assert '"steps": 3125' in (tmp_path / "gain.json").read_text()
