"""Shares of the update are what they are said to be, and the samples that stand out are those of a plain sort."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from presence_ds.errors import ConfigError
from presence_ds.reweighting.update_share import update_terms
from presence_ds.trainer.samples.find import KEYS, find_samples, open_records
from tests.trainer.gain.records import make_step, write_run
from tests.trainer.samples.records import PER_STEP, columns_of, write_records

STEPS = list(range(1, 9))


def shares_of(run_dir: Path) -> dict[str, float | None]:
    with open_records(run_dir) as records:
        return dict(records.fetch("SELECT document_id, share FROM shares"))


def expected(columns: dict[str, Any], counts: np.ndarray) -> dict[str, float]:
    """By document, of those that count, written out."""
    found = {}
    for step in np.unique(columns["step"]):
        own = np.flatnonzero((columns["step"] == step) & counts)
        weight, norm, alignment = (
            columns[name][own].astype(np.float32).astype(float) for name in ("weight", "self_influence", "alignment")
        )
        parts = weight * (weight * norm + (1 - weight) * alignment)
        in_torch = update_terms(*(torch.from_numpy(values) for values in (weight, norm, alignment)))
        np.testing.assert_allclose(in_torch, parts, rtol=1e-12)
        for index, share in zip(own, parts / parts.sum(), strict=True):
            found[columns["document_id"][index]] = share
    return found


def test_shares_of_the_update(tmp_path: Path) -> None:
    columns = columns_of(STEPS)
    found = shares_of(write_records(tmp_path, columns))
    assert found == pytest.approx(expected(columns, np.ones(len(columns["step"]), bool)), rel=1e-6, abs=1e-9)
    assert sum(share for share in found.values() if share is not None) == pytest.approx(len(STEPS))
    assert min(share for share in found.values() if share is not None) < 0


def test_they_are_parts_of_the_squared_norm_of_the_gradient(tmp_path: Path) -> None:
    """Of gradients themselves, with uniform weights, under which it is exact."""
    gradients = torch.randn(PER_STEP, 50, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.2
    others = (gradients.sum(0) - gradients) / (PER_STEP - 1)
    columns = columns_of([3]) | {
        "self_influence": gradients.square().sum(1).numpy(),
        "alignment": (gradients * others).sum(1).numpy(),
        "weight": np.full(PER_STEP, 1 / PER_STEP),
    }
    mean = gradients.mean(0)
    parts = (gradients @ mean / PER_STEP / mean.square().sum()).tolist()
    found = shares_of(write_records(tmp_path, columns))
    assert found == pytest.approx(dict(zip(columns["document_id"], parts, strict=True)), rel=1e-4)


def test_those_that_did_not_count_have_none(tmp_path: Path) -> None:
    columns, counts = columns_of(STEPS), np.ones(len(STEPS) * PER_STEP, bool)
    counts[[1, 40, 70]] = False
    columns["has_targets"][1] = False
    columns["loss"][40] = np.nan
    columns["weight"][70] = columns["alignment"][70] = 0.0
    run_dir = write_records(tmp_path, columns)
    assert shares_of(run_dir) == pytest.approx(expected(columns, counts), rel=1e-6, abs=1e-9)
    chosen = find_samples(run_dir, 1000, "weight")
    assert (chosen.records, chosen.counted, len(chosen.found)) == (len(counts), counts.sum(), counts.sum())


def test_steps_without_alignments_go_by_length(tmp_path: Path) -> None:
    """Beside others with them, and in a file of an older version, which has not all of the columns."""
    old, new = columns_of([1, 2]), columns_of([3, 4], seed=1)
    del old["alignment"]
    new["document_id"] = [f"new {name}" for name in new["document_id"]]
    write_records(tmp_path, old, without=("alignment", "momentum_alignment", "reference_alignment"))
    found = shares_of(write_records(tmp_path, new))
    for step in (1, 2):
        own = np.flatnonzero(old["step"] == step)
        lengths = old["weight"][own] * np.sqrt(old["self_influence"][own])
        for index, share in zip(own, lengths / lengths.sum(), strict=True):
            assert found[old["document_id"][index]] == pytest.approx(share, rel=1e-6)
    counts = np.ones(len(new["step"]), bool)
    assert {key: found[key] for key in new["document_id"]} == pytest.approx(expected(new, counts), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("without", [(), ("alignment",)])
def test_an_estimate_below_zero(without: tuple[str, ...], tmp_path: Path) -> None:
    columns = columns_of([1])
    columns["self_influence"][3] = -1e-6
    for name in without:
        del columns[name]
    share = shares_of(write_records(tmp_path, columns))["d3"]
    assert share == 0.0 if without else share is not None


def test_no_self_influence_no_share(tmp_path: Path) -> None:
    columns = columns_of([1])
    del columns["self_influence"], columns["alignment"]
    write_records(tmp_path, columns)
    assert set(shares_of(tmp_path).values()) == {None}
    for by, remedy in (("share", "another signal"), ("si", "another signal"), ("alignment", "presence.alignment true")):
        with pytest.raises(ConfigError, match=f"by is {by}: no sample of steps 1 to 1 that counts has one.*{remedy}"):
            find_samples(tmp_path, 3, by)
    assert find_samples(tmp_path, 3, "weight").found[0].self_influence is None


def test_those_count_that_count_for_gains(tmp_path: Path) -> None:
    """Left out for each of the reasons there are; the other rule is that of `presence_ds.trainer.gain.records`."""
    steps = {number: make_step(number, left_out=number % 4) for number in range(1, 13)}
    chosen = find_samples(write_run(tmp_path / "run", steps), 1, "weight")
    assert chosen.records == sum(len(step.weights) for step in steps.values())
    assert chosen.counted == sum(int(step.samples.counted.sum()) for step in steps.values()) < chosen.records


@pytest.mark.parametrize("by", KEYS)
@pytest.mark.parametrize("lowest", [False, True])
@pytest.mark.parametrize("filters", [{}, {"source": "wiki"}, {"first": 3, "last": 5}, {"last": 1, "source": "web"}])
def test_the_first_of_a_sort(by: str, lowest: bool, filters: dict[str, Any], tmp_path: Path) -> None:
    columns = columns_of(STEPS)
    run_dir = write_records(tmp_path, columns)
    shares = shares_of(run_dir)
    values = {
        "weight": columns["weight"] * PER_STEP,
        "si": columns["self_influence"],
        "alignment": columns["alignment"],
        "share": np.array([shares[name] for name in columns["document_id"]]),
    }[by]
    chosen = (columns["step"] >= filters.get("first", 1)) & (columns["step"] <= filters.get("last", 99))
    chosen &= np.isin(columns["source"], [filters["source"]] if "source" in filters else columns["source"])
    order = np.flatnonzero(chosen)[np.argsort(values[chosen] * (1 if lowest else -1))][:7]
    found = find_samples(run_dir, 7, by, lowest=lowest, **filters)
    assert [one.sample.document_id for one in found.found] == [columns["document_id"][index] for index in order]
    assert found.records == chosen.sum()
    assert (found.first, found.last) == (filters.get("first", 1), filters.get("last", 8))
    for one, index in zip(found.found, order, strict=True):
        assert (one.sample.source, one.step) == (columns["source"][index], columns["step"][index])
        assert one.weight == pytest.approx(columns["weight"][index] * PER_STEP, rel=1e-5)
        assert one.loss == pytest.approx(columns["loss"][index], rel=1e-5)


def test_like_ones_come_in_their_order(tmp_path: Path) -> None:
    columns = columns_of(STEPS) | {"weight": np.full(len(STEPS) * PER_STEP, 1 / PER_STEP)}
    found = find_samples(write_records(tmp_path, columns), 30, "weight").found
    assert [(one.step, one.rank, one.micro_step, one.position) for one in found[:24]] == [
        (1, rank, micro, position) for rank in (0, 1) for micro in (0, 1) for position in range(6)
    ]
    assert {one.step for one in found[24:]} == {2}


def test_names_of_folders_stand_for_themselves(tmp_path: Path) -> None:
    for name in ("a[1]'s", "a1's", "b*?", "bcd"):
        columns = columns_of([1]) | {"document_id": [name] * PER_STEP}
        write_records(tmp_path / name, columns)
    for name in ("a[1]'s", "b*?"):
        assert {one.sample.document_id for one in find_samples(tmp_path / name, 99, "weight").found} == {name}


def test_files_that_are_still_written_are_passed_over(tmp_path: Path) -> None:
    run_dir = write_records(tmp_path, columns_of(STEPS))
    (run_dir / "scores" / "_ranks_00000-00001-steps_00000009.parquet.open").write_bytes(b"PAR1")
    assert find_samples(run_dir, 1, "weight").last == 8


def test_steps_of_which_nothing_is_recorded(tmp_path: Path) -> None:
    """Step 0 is one of them, as steps begin with 1."""
    run_dir = write_records(tmp_path, columns_of(STEPS))
    for first, last, asked in ((None, 0, ":0"), (0, 0, "0:0"), (9, None, "9:")):
        with pytest.raises(ConfigError, match=f"steps is {asked}: records are of steps 1 to 8"):
            find_samples(run_dir, 1, "weight", first=first, last=last)
    assert find_samples(run_dir, 1, "weight", first=0).first == 1


def test_the_database_is_small_and_leaves_nothing(tmp_path: Path) -> None:
    """Nothing in the working directory, where DuckDB would put what is more than its memory."""
    with open_records(write_records(tmp_path, columns_of([1]))) as records:
        names = ("memory_limit", "threads", "temp_directory", "autoload_known_extensions")
        ((memory, threads, folder, loads),) = records.fetch(
            "SELECT " + ", ".join(f"current_setting('{name}')" for name in names)
        )
        assert (memory, threads, loads) == ("286.1 MiB", 2, False)
        assert Path(folder).is_dir()
        assert Path(folder).is_absolute()
    assert not Path(folder).exists()


def test_memory_does_not_grow_with_the_number_of_records(tmp_path: Path) -> None:
    """Half a million, of which DuckDB may hold no more than a part, and put nothing off to the disk."""
    columns = columns_of(list(range(1, 2001)))
    columns["document_id"] = [f"a rather long name of a document, number {number}" for number in range(48_000)]
    for part in range(10):
        write_records(tmp_path, columns | {"step": columns["step"] + 2000 * part}, row_group_steps=200)
    with open_records(tmp_path) as records:
        records.fetch("SET memory_limit = '24MB'")
        records.fetch("SET max_temp_directory_size = '0KB'")
        ranked = "SELECT document_id FROM shares ORDER BY share DESC, step, rank, micro_step, position"
        assert len(records.fetch(f"{ranked} LIMIT 10")) == 10
        with pytest.raises(ConfigError, match="Out of Memory"):
            records.fetch(f"SELECT count(*) FROM ({ranked} LIMIT 400000)")
