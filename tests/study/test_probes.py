"""AUCs of score records, counted pair by pair, and the tables of what rows have beside the loss."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from study.committed import runs_of
from study.probes import FIGURES, aucs
from study.results import write_tables
from study.rows import VERSIONS, Row
from study.tables import probes_table, tenths_table, weights_table


def test_aucs_are_in_units_of_the_step_and_of_the_last_steps(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    steps, sources = np.repeat(np.arange(1, 9), 12), draws.choice(["web", "wiki", "random"], size=96)
    columns = {
        "self_influence": draws.gamma(2.0, size=96) * 10.0**steps,  # which say nothing across steps
        "loss": draws.normal(size=96) - steps,
        "alignment": draws.normal(size=96) * 10.0**steps,
    }
    (tmp_path / "scores").mkdir()
    nothing = {
        "step": 8,
        "source": "random",
        "self_influence": 0.0,
        "loss": 0.0,
        "alignment": 0.0,
        "has_targets": False,
    }
    table = pa.table({"step": steps, "source": sources, **columns, "has_targets": np.ones(96, dtype=bool)})
    part = pa.concat_tables([table, pa.Table.from_pylist([nothing] * 5, table.schema)])
    pq.write_table(part, tmp_path / "scores" / "ranks_00000.parquet")
    found = aucs(tmp_path, ["web", "wiki"], ["random", "danish"], first_step=5)
    assert list(found) == ["random"]
    units = {step: columns["self_influence"][steps == step].mean() for step in range(5, 9)}
    middles = {step: columns["loss"][steps == step].mean() for step in range(5, 9)}
    late = [index for index in range(96) if steps[index] >= 5]
    relative = {
        "si": {index: columns["self_influence"][index] / units[steps[index]] for index in late},
        "loss": {index: columns["loss"][index] - middles[steps[index]] for index in late},
        "alignment": {index: columns["alignment"][index] / units[steps[index]] for index in late},
    }
    noisy = [index for index in late if sources[index] == "random"]
    pairs = list(product(noisy, set(late) - set(noisy)))
    for figure in FIGURES:
        higher = sum(relative[figure][one] > relative[figure][other] for one, other in pairs)
        assert found["random"][figure] == pytest.approx(higher / len(pairs))


def test_tables_of_tenths_probes_and_weights(tmp_path: Path) -> None:
    rows = []
    for arm, seed in product(("uniform", "clip"), (0, 1)):
        cell = {"text": "random-25", "arm": arm, "rate": 0.01, "seed": seed, "batch": 32, "shape": "t", "steps": 300}
        tenths = {tenth: 5.0 + 0.1 * seed - 0.01 * tenth * (arm == "clip") for tenth in range(1, 11)}
        found = {"random": {"si": 0.25, "loss": 0.5 + 0.25 * seed, "alignment": 0.5}} if arm == "uniform" else {}
        weights = {"web": 1.1, "random": 0.5 + 0.2 * seed} if arm == "clip" else {"web": 1.0, "random": 1.0}
        versions = dict.fromkeys(VERSIONS, "1")
        rows.append(Row(f"{arm}{seed}", 1, cell, versions, "finished", loss=5.0 + seed, tenths=tenths, aucs=found))
        rows[-1] = replace(rows[-1], weights=weights)
    write_tables(rows, tmp_path)
    runs = runs_of(tmp_path)
    assert "| random-25 | t | random | 0.25 | 0.62 | 0.50 | 2 |" in probes_table(runs)
    assert "| random-25 | t | clip at the median | −0.0100 | −0.0200 |" in tenths_table(runs)
    assert tenths_table(runs).splitlines()[2].endswith("| −0.1000 |")
    assert weights_table(runs).splitlines()[2:] == ["| random-25 | t | clip at the median | 0.60 | 1.10 |"]
