"""Files that are whole or not there, what is read of a corpus, and by what a model is known."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from presence_ds import PresenceConfig
from presence_ds.data import PackedDataset
from presence_ds.trainer.scoring.batches import RowBatches
from presence_ds.trainer.scoring.folder import ScoresFolder, create_once, write_table
from presence_ds.trainer.scoring.manifest import _settings
from presence_ds.trainer.scoring.models import find_models


@pytest.mark.parametrize("links", [True, False], ids=["links", "a file system without links"])
def test_the_first_of_several_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", refused)
    for text in ("first", "second"):
        create_once(tmp_path / "file", lambda path, text=text: path.write_text(text))
    assert (tmp_path / "file").read_text() == "first"
    assert os.listdir(tmp_path) == ["file"]


def test_parts_are_told_without_a_gap(tmp_path: Path) -> None:
    """Two processes may have been at the same rows; what lies after a gap is scored again."""
    folder = ScoresFolder(tmp_path)
    for rows in (range(0, 4), range(0, 8), range(4, 6), range(8, 12), range(16, 20), range(54, 60)):
        folder.part("one", rows).parent.mkdir(parents=True, exist_ok=True)
        folder.part("one", rows).touch()
    stretches = [range(0, 50), range(50, 90)]
    assert folder.told("one", stretches) == [[range(0, 8), range(8, 12)], []]
    assert folder.told("another", stretches) == [[], []]
    folder.clear_parts(stretches[:1], ["one", "another"])
    assert [path.name for path in folder.parts.rglob("*.parquet")] == [folder.part("one", range(54, 60)).name]


@pytest.mark.parametrize(
    ("parts", "rows"),
    [([range(10), range(12)], range(10)), ([range(12), range(12, 24), range(13)], range(24))],
    ids=["one goes on where the other has been", "one between two of the other's"],
)
def test_what_two_have_told_of_is_read_once(tmp_path: Path, parts: list[range], rows: range) -> None:
    folder = ScoresFolder(tmp_path)
    for part in parts:
        write_table(pa.table({"row": list(part)}), folder.part("one", part))
    found = pa.concat_tables(folder.read("one", rows))
    assert found["row"].to_pylist() == list(rows)


def test_rows_are_numbered_as_they_are_read(dataset: PackedDataset) -> None:
    """However many there are."""
    ranks: Any = SimpleNamespace(rank=1, world_size=2)
    stretch = range(10**12)
    own, seen, batch = next(RowBatches(dataset, [stretch], 4, ranks, 0).of(stretch))
    assert (own, seen) == (range(4, 8), range(8))
    assert batch["input_ids"].tolist() == [dataset[row]["input_ids"].tolist() for row in own]


def test_a_model_is_known_by_its_commit_or_its_files(tmp_path: Path) -> None:
    (on_hub,) = find_models((), "someone/model", "c0ffee")
    assert on_hub.described() == {"name": "model", "path": "someone/model", "step": None, "digest": "c0ffee"}
    digests = set()
    for name, text in (("config.json", "{}"), ("modeling.py", "1"), ("modeling.py", "2")):
        (tmp_path / name).write_text(text)
        digests.add(find_models((), str(tmp_path), None)[0].digest)
    assert len(digests) == 3


def test_what_has_no_effect_on_scores_is_not_compared() -> None:
    without = PresenceConfig(preset="paper", alignment=True, alignment_dim=8)
    assert _settings(without)["alignment_dim"] is None
    assert _settings(PresenceConfig(preset="paper", signal="alignment", alignment_dim=8))["alignment_dim"] == 8
