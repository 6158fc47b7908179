from pathlib import Path

from benchmarks.communication import ScaleSetting, step_traffic
from benchmarks.communication.traffic import latency_steps, sent_bytes
from benchmarks.scale import COUNTED, MODEL, Machine, report_predictions


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


def section(name: str) -> str:
    text = (Path(__file__).parents[2] / "docs" / "scale.md").read_text()
    return text.split(f"<!-- {name} -->")[1].split(f"<!-- /{name} -->")[0].strip()


def test_the_document_has_the_predictions_of_the_model() -> None:
    assert section("predicted") == report_predictions(Machine()).strip()


def test_what_the_document_has_counted_is_beside_what_the_model_says() -> None:
    """Cells are "counted / model"; ZeRO-1 reduces every float32 gradient once, so that it tells the parameters."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section("counted").splitlines()[2:]]
    parameters = int(rows[0][3].split(" / ")[1].replace(",", "")) // 4
    assert {row[2] for row in rows} == set(COUNTED)
    for stage, ranks, variant, *cells, _ in rows:
        model = step_traffic(
            ScaleSetting(
                parameters,
                int(ranks),
                int(stage),
                COUNTED[variant],
                micro_batch_size=MODEL.batch_size,
                bytes_per_number=4,
                keeps_gathered=True,
            )
        )
        for kind, cell in zip(("all-reduce", "all-gather", "reduce-scatter"), cells, strict=True):
            expected = model[kind].payload if kind in model else 0
            assert cell.endswith(f" / {expected:,}") or (cell, expected) == ("–", 0), (stage, variant, kind)
