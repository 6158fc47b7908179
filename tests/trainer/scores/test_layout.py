"""A folder of scores is read where it is whole, and refused in one line where it is not."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from presence_ds.errors import DataError
from presence_ds.trainer.scores.layout import MANIFEST, open_scores, rows_file_name, schema_of
from tests.trainer.scores.folders import ROWS_PER_FILE, random_scores, write_scores


@pytest.fixture
def folder(corpora: dict[str, Path], tmp_path: Path) -> Path:
    corpus = corpora["concat"]
    return write_scores(tmp_path / "scores", corpus, random_scores(corpus))


def test_every_row_comes_once(folder: Path, corpora: dict[str, Path]) -> None:
    (folder / ".rows-000000000064.parquet.0.partial").write_bytes(b"half")
    scores = open_scores(folder)
    parts = list(scores.parts(["self_influence"]))
    assert [first for first, _ in parts] == list(range(0, scores.rows, ROWS_PER_FILE))
    found = pa.concat_tables([part for _, part in parts])
    assert found["row"].to_pylist() == list(range(scores.rows))
    assert found["self_influence"].to_numpy() == pytest.approx(random_scores(corpora["concat"]), abs=0)


def test_columns_of_several_checkpoints() -> None:
    assert schema_of(["step_3"]) == schema_of([])
    names = schema_of(["step_3", "step_9"]).names
    assert names[-4:] == ["self_influence_step_3", "loss_step_3", "self_influence_step_9", "loss_step_9"]


def test_the_digest_is_of_everything(folder: Path) -> None:
    before = open_scores(folder).digest()
    assert open_scores(folder).digest() == before
    edited(0, lambda table: table.set_column(4, "loss", pa.array([1.0] * len(table), pa.float32())))(folder)
    assert open_scores(folder).digest() != before


def edited(first: int, edit: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    """Does so with the file that begins with row ``first``."""

    def change(folder: Path) -> None:
        file = folder / rows_file_name(first)
        pq.write_table(edit(pq.read_table(file)), file)

    return change


def stating(**values: object) -> Callable[[Path], None]:
    """Has the manifest say so."""

    def change(folder: Path) -> None:
        manifest = json.loads((folder / MANIFEST).read_text())
        (folder / MANIFEST).write_text(json.dumps(manifest | values))

    return change


def more_rows(folder: Path, number: int) -> None:
    corpus = json.loads((folder / MANIFEST).read_text())["corpus"]
    stating(corpus=corpus | {"rows": corpus["rows"] + number})(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: (folder / rows_file_name(64)).unlink(), "has no scores of rows 64 to 127 of"),
        (lambda folder: (folder / rows_file_name(0)).unlink(), "has no scores of rows 0 to 63 of"),
        (lambda folder: more_rows(folder, 1), "has scores of the first "),
        (lambda folder: more_rows(folder, -1), "its corpus has "),
        (
            lambda folder: (folder / rows_file_name(70)).write_bytes((folder / rows_file_name(64)).read_bytes()),
            "has rows again that are in the file before it, from 70 to 127",
        ),
        (edited(64, lambda table: table.slice(1)), "has no scores of rows 127 to 127"),
        (edited(64, lambda table: table.take([1, 0, *range(2, 64)])), "does not hold rows 64 to 127, each once"),
        (edited(64, lambda table: table.take([0, *range(63)])), "does not hold rows 64 to 127, each once"),
        (edited(64, lambda table: table.drop_columns("self_influence")), "has no column self_influence"),
        (lambda folder: (folder / rows_file_name(64)).write_bytes(b"PAR1"), "cannot be read"),
        (lambda folder: (folder / "rows-x.parquet").touch(), "is no file of scores"),
        (lambda folder: (folder / MANIFEST).unlink(), "holds no scores"),
        (lambda folder: (folder / MANIFEST).write_text("{"), "is damaged"),
        (stating(format_version=2), "another version"),
        (stating(part="validation"), "is of part validation"),
        (stating(corpus={"path": "x", "rows": 3}), "does not say which corpus"),
    ],
)
def test_what_is_not_whole_is_refused(change: Callable[[Path], None], words: str, folder: Path) -> None:
    change(folder)
    with pytest.raises(DataError) as caught:
        list(open_scores(folder).parts(["self_influence"]))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
