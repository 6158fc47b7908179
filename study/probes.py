"""How far the figures of samples tell noise from clean text, from the score records of a run."""

from collections.abc import Collection
from pathlib import Path

import duckdb
import numpy as np

from presence_ds.trainer.scores.probe import auc

# In units of the step: they move with the model.
FIGURES = {
    "si": "self_influence / avg(self_influence) OVER step_",
    "loss": "loss - avg(loss) OVER step_",
    "alignment": "alignment / avg(self_influence) OVER step_",
}


def aucs(run_dir: Path, clean: Collection[str], noise: Collection[str], first_step: int) -> dict[str, dict[str, float]]:
    """Of every source of ``noise`` and each of `FIGURES`: the chance that it is higher than that of a clean sample.

    Args:
        first_step: of those whose samples count.
    """
    columns = ", ".join(f"{expression} AS {name}" for name, expression in FIGURES.items())
    with duckdb.connect() as database:  # runs end in threads, and the one that all of them share takes no two calls
        found = database.execute(
            f"SELECT source, {columns} FROM read_parquet(?) "
            "WHERE step >= ? AND has_targets AND isfinite(self_influence) WINDOW step_ AS (PARTITION BY step)",
            [str(run_dir / "scores" / "*.parquet"), first_step],
        ).fetchnumpy()
    sources = found["source"]
    is_clean = np.isin(sources, list(clean))
    return {
        name: {figure: auc(found[figure][is_clean], found[figure][sources == name]) for figure in FIGURES}
        for name in noise
        if (sources == name).any()
    }
