"""`presence gain` refuses what it cannot tell in one line that names what is at fault."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from presence_ds import cli
from tests.trainer.gain.records import make_step, write_run

TRUSTED = "{trusted: {signal: alignment, schedule: {kind: constant}}}"


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "run", {number: make_step(number) for number in range(11, 31)})


def fails(capsys: pytest.CaptureFixture[str], *arguments: Path | str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main(["gain", *map(str, arguments)])
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    return error


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ("{mine: {signl: loss}}", ["weights.mine", "signl"]),
        ("{mine: {weighting: {kind: clp}}}", ["weights.mine", "weighting.kind", "clp"]),
        ("{mine: {weighting: {kind: clip, quantile: 2}}}", ["weights.mine.weighting.quantile is 2.0"]),
        ("{mine: {weighting: {kind: clip, threshold: 2}}}", ["weights.mine.weighting.threshold", "saturating"]),
        ("{mine: {strategy: two_pass}}", ["weights.mine", "strategy"]),
        ("{mine: 3}", ["weights.mine is 3"]),
        ("{mine: null}", ["weights.mine is null"]),
        ("{mine: {signal: leverage}}", ["weights.mine.signal is leverage", "do not hold"]),
        ("{mine: {preset: paper}}", ["weights.mine.schedule.kind is two_stage", "constant"]),
        ("{mine: {signal: loss, schedule: {kind: auto}}}", ["weights.mine.schedule.kind is auto", "constant"]),
        ("{mine: {weighting: {kind: clip, placebo: true}}}", ["weights.mine.weighting.placebo"]),
        (
            "{mine: {min_effective_share: 0.5, schedule: {kind: constant}}}",
            ["weights.mine.min_effective_share is 0.5", "training"],
        ),
        ("{mine: {near_duplicates: 0.5}}", ["weights.mine.near_duplicates is 0.5", "training"]),
        ("{mine: {alignment: true}}", ["weights.mine.alignment is True", "training"]),
        ("{mine: {alignment_with: reference}}", ["weights.mine.alignment_with is reference"]),
        (
            "{mine: {preset: calibrated, weighting: {features: [length]}}}",
            ["weights.mine.weighting.features", "length"],
        ),
        ("{clip: {}}", ["weights.clip", "choose another"]),
        ("{in_use: {}}", ["weights.in_use", "choose another"]),
        ("{1: {}}", ["weights has a name 1"]),
        ("[{}]", ["weights"]),
    ],
)
def test_weights_that_cannot_be_compared(
    run_dir: Path, weights: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    error = fails(capsys, run_dir, "--weights", weights)
    assert all(word in error for word in words), error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--first_step", "31"], "first_step is 31: records are of steps 11 to 30"),
        (["--last_step", "10"], "last_step is 10: records are of steps 11 to 30"),
        (["--last_step", "0"], "last_step is 0: "),
        (["--first_step", "0"], "first_step is 0: it must be at least 1"),
        (["--first_step", "20", "--last_step", "19"], "last_step is 19: it must be at least first_step, 20"),
        (["--json", "/nowhere/gain.json"], "json is /nowhere/gain.json: it cannot be written (No such file"),
    ],
)
def test_steps_and_files_that_there_are_not(
    run_dir: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in fails(capsys, run_dir, *arguments)


def edited(edit: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    """Does so with one of the files of a run."""

    def change(run_dir: Path) -> None:
        file = sorted((run_dir / "scores").iterdir())[1]
        pq.write_table(edit(pq.read_table(file)), file)

    return change


def emptied(name: str) -> Callable[[Path], None]:
    """The column without values in one of the files."""

    def edit(table: pa.Table) -> pa.Table:
        return table.set_column(table.schema.get_field_index(name), name, pa.nulls(len(table), pa.float32()))

    return edited(edit)


def as_text(name: str) -> Callable[[Path], None]:
    """The column as words in one of the files."""

    def edit(table: pa.Table) -> pa.Table:
        place = table.schema.get_field_index(name)
        return table.set_column(place, name, table[name].cast(pa.string()))

    return edited(edit)


def without_records(run_dir: Path) -> None:
    for file in (run_dir / "scores").iterdir():
        file.rename(file.with_name(f"{file.name}.open"))


def cut_short(run_dir: Path) -> None:
    file = min((run_dir / "scores").iterdir())
    file.write_bytes(file.read_bytes()[:-100])


def damaged(run_dir: Path) -> None:
    file = min((run_dir / "scores").iterdir())
    content = file.read_bytes()
    file.write_bytes(content[:4] + bytes(len(content) // 2) + content[4 + len(content) // 2 :])


@pytest.mark.parametrize("asked", [["--alignment_with", "reference"], ["--weights", TRUSTED]])
def test_a_run_without_a_reference(asked: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = write_run(tmp_path / "run", {number: make_step(number) for number in range(11, 31)})
    emptied("reference_alignment")(run_dir)
    error = fails(capsys, run_dir, *asked)
    assert all(word in error for word in ("no reference_alignment of 240 samples", "reference.sources")), error
    edited(lambda table: table.drop_columns("reference_alignment"))(run_dir)
    assert "no column reference_alignment" in fails(capsys, run_dir, *asked)
    cli.main(["gain", str(run_dir)])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda run_dir: (run_dir / "recipe.yaml").unlink(), ["run_dir", "there is no run"]),
        (without_records, ["run_dir", "no score records", "logging.score_records"]),
        (edited(lambda table: table.drop_columns("alignment")), ["no column alignment", "presence.alignment true"]),
        (emptied("alignment"), ["steps 11 to 30", "no alignment of 240 samples", "presence.alignment true"]),
        (emptied("self_influence"), ["no self_influence of 240 samples", "presence.alignment true"]),
        (edited(lambda table: table.drop_columns("weight")), ["holds no score records", "weight"]),
        (as_text("alignment"), ["holds no score records", "alignment is of type string"]),
        (edited(lambda table: table.drop_columns("step")), ["holds no score records"]),
        (cut_short, ["holds no score records"]),
        (damaged, ["cannot be read"]),
    ],
)
def test_runs_without_what_it_takes(
    change: Callable[[Path], None], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = write_run(tmp_path / "run", {number: make_step(number) for number in range(11, 31)})
    change(run_dir)
    error = fails(capsys, run_dir)
    assert all(word in error for word in words), error


def test_no_run_at_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no run" in fails(capsys, tmp_path / "nowhere")


def test_what_is_asked_of_other_steps_may_be_missing(run_dir: Path, tmp_path: Path) -> None:
    """A run that computes alignments since it was resumed is looked at from there on."""
    steps = {number: make_step(number) for number in range(1, 11)}
    other = write_run(tmp_path / "run", steps)
    emptied("alignment")(other)
    for file in (run_dir / "scores").iterdir():
        (other / "scores" / file.name).write_bytes(file.read_bytes())
    cli.main(["gain", str(other), "--first_step", "11", "--json", str(tmp_path / "gain.json")])
    assert (tmp_path / "gain.json").is_file()


@pytest.mark.parametrize("weight", [0.0, float("nan")])
def test_a_step_of_weights_that_are_none(weight: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Zeros, as a damaged run has them, leave the mean weight out; samples whose weight is not finite do not count."""
    run_dir = write_run(tmp_path / "run", {number: make_step(number) for number in range(11, 31)})

    def edit(table: pa.Table) -> pa.Table:
        chosen = np.where(table["step"].to_numpy() == 20, weight, table["weight"].to_numpy())
        return table.set_column(table.schema.get_field_index("weight"), "weight", pa.array(chosen, pa.float32()))

    for file in (run_dir / "scores").iterdir():
        pq.write_table(edit(pq.read_table(file)), file)
    capsys.readouterr()
    cli.main(["gain", str(run_dir)])
    assert "verdict" in capsys.readouterr().out
