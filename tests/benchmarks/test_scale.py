from pathlib import Path

from benchmarks.communication import ScaleSetting, step_traffic
from benchmarks.communication.traffic import latency_steps, sent_bytes
from benchmarks.scale import COUNTED, STAGES, Machine, report_predictions


def test_what_a_rank_sends() -> None:
    plain = ScaleSetting(1000, ranks=4, stage=3, strategy=None, accumulation_steps=3)
    assert step_traffic(plain)["all-gather"].payload == 3 * 2 * 2000
    assert sent_bytes("all-reduce", 800, 4) == 1200
    assert sent_bytes("all-gather", 800, 4) == 600
    assert latency_steps("all-gather", 64) == 63
    assert latency_steps("all-reduce", 64) == 12


def test_predictions_for_a_machine() -> None:
    """8 GPUs x 8 samples x 4 numbers of 4 bytes; seven messages inside a machine."""
    line = report_predictions(Machine(local_message=1e-3)).splitlines()[2]
    assert line.startswith("| 8 | ")
    assert "| 1.0 kB | 7.00 ms (" in line


def test_the_document_has_the_tables() -> None:
    """What is arithmetic is what the code says now; what was counted is one line for each stage, ranks and step."""
    text = (Path(__file__).parents[2] / "docs" / "scale.md").read_text().replace("<!-- /", "<!-- ")
    tables = {name: text.split(f"<!-- {name} -->")[1] for name in ("counted", "predicted")}
    assert tables["predicted"].strip() == report_predictions(Machine())
    assert len(tables["counted"].strip().splitlines()) == 2 + len(STAGES) * 2 * len(COUNTED)
