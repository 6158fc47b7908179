"""docs/study.md holds what the committed rows say."""

import pytest

from study.committed import runs_of
from study.plan import read_plan
from study.tables import TABLES
from tests.trainer.conftest import ROOT

RESULTS = ROOT / "study" / "results" / "small"
DOCUMENT = ROOT / "docs" / "study.md"


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_those_of_the_rows(name: str) -> None:
    _, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(f"<!-- {name} -->")
    text, closed, _ = rest.partition(f"<!-- /{name} -->")
    assert closed
    assert text.strip() == TABLES[name](runs_of(RESULTS)).strip()


def test_rows_are_of_cells_that_the_plan_has() -> None:
    """Or nobody could run them again."""
    assert {run.cell for run in runs_of(RESULTS)} <= set(read_plan("small").cells())


def test_rows_are_small() -> None:
    sizes = [path.stat().st_size for path in RESULTS.iterdir()]
    assert sum(sizes) < 2_000_000
