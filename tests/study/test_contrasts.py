"""What rows come to in words: pairs by seed, each arm at its best rate, runs that diverged, equivalence."""

from math import inf, nan
from pathlib import Path

import pytest

from study.committed import runs_of
from study.contrasts import Effect, Run, effects
from study.plan import Cell
from study.results import write_tables
from study.rows import VERSIONS, Row
from study.tables import effects_table, rates_table


def runs(arm: str, rate: float, losses: list[float], text: str = "web") -> list[Run]:
    return [Run(Cell(text, arm, rate, seed, 32, "s", 300), loss) for seed, loss in enumerate(losses)]


def only(found: list[Run]) -> Effect:
    (effect,) = effects(found)
    return effect


def test_pairs_are_of_one_seed() -> None:
    """Seeds differ by a nat, arms by a hundredth."""
    effect = only(runs("uniform", 0.01, [4.0, 5.0, 6.0]) + runs("clip", 0.01, [3.99, 4.989, 5.991]))
    assert effect.differences == pytest.approx([-0.01, -0.011, -0.009])
    assert effect.mean == pytest.approx(-0.01)
    half = 4.302653 * 0.001 / 3**0.5  # Student's t with two degrees of freedom
    assert (effect.low, effect.high) == pytest.approx((-0.01 - half, -0.01 + half))
    assert effect.verdict == "better"  # the interval is below 0, and not within 0.2 % of 5
    assert effect.losses == pytest.approx((4.99, 5.0))


@pytest.mark.parametrize(
    ("losses", "verdict"),
    [
        ([4.9, 4.91, 4.89], "better"),
        ([5.1, 5.11, 5.09], "worse"),
        ([5.001, 5.0, 4.999], "equivalent"),
        ([4.8, 5.1, 5.0], "open"),
        ([4.9], "one seed"),
        ([4.9, inf, 4.9], "worse"),
    ],
)
def test_verdicts(losses: list[float], verdict: str) -> None:
    assert only(runs("uniform", 0.01, [5.0, 5.0, 5.0]) + runs("clip", 0.01, losses)).verdict == verdict


def test_every_arm_is_taken_at_its_own_best_rate() -> None:
    uniform = runs("uniform", 0.01, [5.0, 5.0]) + runs("uniform", 0.02, [4.8, 4.8])
    clip = runs("clip", 0.01, [4.9, 4.9]) + runs("clip", 0.02, [5.3, 5.3]) + runs("clip", 0.03, [1.0])  # one seed alone
    effect = only(uniform + clip)
    assert (effect.rate, effect.baseline_rate) == (0.01, 0.02)
    assert effect.mean == pytest.approx(0.1)


def test_texts_are_not_mixed() -> None:
    found = runs("uniform", 0.01, [5.0, 5.0]) + runs("clip", 0.01, [4.0, 4.0], text="seven")
    assert list(effects(found)) == []


def test_tables_are_made_of_the_committed_rows(tmp_path: Path) -> None:
    rows = []
    for arm, losses in (("uniform", [5.0, 5.1]), ("clip", [4.9, 4.99]), ("paper", [nan, 5.0])):
        for seed, loss in enumerate(losses):
            cell = {"text": "web", "arm": arm, "rate": 0.01, "seed": seed, "batch": 32, "shape": "s", "steps": 300}
            ended = {"state": "diverged"} if loss != loss else {"state": "finished", "loss": loss}
            rows.append(Row(f"{arm}{seed}", 1, cell, dict.fromkeys(VERSIONS, "1"), **ended))
    write_tables(rows, tmp_path)
    table = effects_table(runs_of(tmp_path)).splitlines()
    assert len(table) == 4
    assert "| clip at the median | 0.01 | 4.945 | 5.050 | −0.1050 (" in table[2]
    assert "| diverged | 2 | worse |" in table[3]
    assert "| web | s | 32 | 300 | uniform | 5.050 |" in rates_table(runs_of(tmp_path))
