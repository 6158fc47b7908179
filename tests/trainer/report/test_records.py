"""Score records → figures, against the gradients that they are of, or numpy."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from presence_ds.trainer.report.choosing import Chosen
from presence_ds.trainer.report.ranges import ranges_of
from presence_ds.trainer.report.recorded import find_recorded
from presence_ds.trainer.report.records import RecordFigures, read_records
from tests.trainer.gain.records import SOURCES, make_step, write_run
from tests.trainer.report.runs import write_records

STEPS = 40


def gradients(step: int, samples: int = 6) -> np.ndarray:
    """Of the samples of a step, [samples, 5]."""
    return np.random.default_rng(step).standard_normal((samples, 5)) + np.eye(5)[0]


def rows_of(step: int, weights: np.ndarray) -> list[dict[str, Any]]:
    """What is recorded of them."""
    g = gradients(step, len(weights))
    others = (g.sum(0) - g) / (len(g) - 1)
    return [
        {
            **{"step": step, "source": SOURCES[place % 2], "document_id": f"d{step}-{place}", "weight": weight},
            **{"self_influence": norm, "alignment": alignment, "loss": float(place)},
        }
        for place, (weight, norm, alignment) in enumerate(
            zip(weights.tolist(), (g**2).sum(1).tolist(), (g * others).sum(1).tolist(), strict=True)
        )
    ]


@pytest.fixture(scope="module")
def uniform(tmp_path_factory: pytest.TempPathFactory) -> RecordFigures:
    """Of steps with uniform weights."""
    rows = [row for step in range(1, STEPS + 1) for row in rows_of(step, np.full(6, 1 / 6))]
    return read_records(write_records(tmp_path_factory.mktemp("uniform"), rows))


def test_shares_are_inner_products_with_the_update(uniform: RecordFigures) -> None:
    """With uniform weights ⟨w g, Σ w g⟩ by ‖Σ w g‖², to the rounding of float32."""
    assert uniform.moved
    for step in uniform.moved:
        g = gradients(step.step) / 6
        update = g.sum(0)
        shares = dict(zip((f"d{step.step}-{place}" for place in range(6)), g @ update / (update @ update), strict=True))
        assert step.by == "alignment"
        assert step.count == 6
        assert {sample.document_id: sample.share for sample in step.samples} == pytest.approx(
            shares, rel=1e-4, abs=1e-5
        )
        sizes = [abs(sample.share) for sample in step.samples]
        assert sizes == sorted(sizes, reverse=True)


def test_sources(uniform: RecordFigures) -> None:
    assert {source.name: source.samples for source in uniform.sources} == dict.fromkeys(SOURCES[:2], 3 * STEPS)
    shares = np.zeros(2)
    for step in range(1, STEPS + 1):
        g = gradients(step)
        update = g.sum(0)
        shares += (g @ update / (update @ update)).reshape(3, 2).sum(0) / STEPS
    found = {source.name: source for source in uniform.sources}
    assert [found[name].share_of_update for name in SOURCES[:2]] == pytest.approx(shares.tolist(), rel=1e-4)
    assert [found[name].weight_mass for name in SOURCES[:2]] == pytest.approx([0.5, 0.5])
    assert found[SOURCES[0]].mean_loss == 2.0
    assert uniform.effective_share == pytest.approx(1.0)


def test_distributions_and_plane(uniform: RecordFigures) -> None:
    norms = np.concatenate([(gradients(step) ** 2).sum(1) for step in range(1, STEPS + 1)])
    assert uniform.self_influence is not None
    assert uniform.self_influence.step == [STEPS]  # too few for more than one bin
    assert uniform.self_influence.q50 == pytest.approx([np.median(np.log10(norms))], rel=1e-4)
    assert uniform.weight is not None
    assert uniform.weight.q05 == pytest.approx([1.0])
    plane = uniform.plane
    assert plane is not None
    counts = np.array(plane.counts)
    assert counts.sum() == len(norms) == sum(plane.norm_counts)
    assert (len(plane.alignment_edges) - 1, len(plane.norm_edges) - 1) == counts.shape
    weights = [weight for row in plane.weight for weight in row if weight is not None]
    assert weights == pytest.approx([1.0] * len(weights))
    assert len(weights) == (counts > 0).sum()


def test_the_plane_says_what_norms_ask_for(tmp_path: Path) -> None:
    """Where alignment is the same for all, the best weight is 1/n; where it grows with n, it is 1."""
    draw = np.random.default_rng(0)
    for name, power, slope in (("constant", 0.0, -1.0), ("proportional", 1.0, 0.0)):
        rows = []
        for step in range(1, 201):
            n = np.exp(0.7 * draw.standard_normal(50))
            a = 0.2 * n**power * (1 + 0.1 * draw.standard_normal(50))
            rows += [
                {"step": step, "weight": 0.02, "self_influence": n_i, "alignment": a_i}
                for n_i, a_i in zip(n.tolist(), a.tolist(), strict=True)
            ]
        plane = read_records(write_records(tmp_path / name, rows)).plane
        assert plane is not None
        told = [
            (left, best, error)
            for left, best, count, error in zip(
                plane.norm_edges, plane.norm_optimal, plane.norm_counts, plane.norm_error, strict=False
            )
            if count > 200
        ]
        lefts, best, errors = (np.array(column) for column in zip(*told, strict=True))
        assert np.polyfit(lefts, np.log10(best), 1)[0] == pytest.approx(slope, abs=0.05)
        assert (errors > 0).all()
        assert (errors < 0.1 * best).all()


def test_the_best_weights_are_the_best(tmp_path: Path) -> None:
    """Of weights in use that are what norms ask for, the plane says so: both have a mean of 1."""
    draw = np.random.default_rng(0)
    rows = []
    for step in range(1, 201):
        n = np.exp(draw.standard_normal(50))
        weights = 1 / n / (1 / n).sum()
        rows += [
            {"step": step, "weight": weight, "self_influence": n_i, "alignment": 0.2}
            for n_i, weight in zip(n.tolist(), weights.tolist(), strict=True)
        ]
    plane = read_records(write_records(tmp_path, rows)).plane
    assert plane is not None
    many = [place for place, count in enumerate(plane.norm_counts) if count > 100]
    used, best = ([row[place] for place in many] for row in (plane.norm_weight, plane.norm_optimal))
    assert best == pytest.approx(used, rel=0.15)
    cells = [
        (count, best)
        for counts, row in zip(plane.counts, plane.optimal, strict=True)
        for count, best in zip(counts, row, strict=True)
        if best is not None
    ]
    total = sum(count for count, _ in cells)
    assert sum(count * best for count, best in cells) / total == pytest.approx(1, abs=0.1)  # some cells have few


def test_the_plane_shows_more_than_its_first_steps(tmp_path: Path) -> None:
    """In a hundredth of the run alignments are 50 times as large; rows tell those of all other steps apart still."""
    draw = np.random.default_rng(0)
    rows = [
        {"step": step, "weight": 0.05, "self_influence": 1.0, "alignment": alignment * (50 if step <= 2 else 1)}
        for step in range(1, 201)
        for alignment in (0.01 * draw.standard_normal(20)).tolist()
    ]
    plane = read_records(write_records(tmp_path, rows)).plane
    assert plane is not None
    shares = np.array(plane.counts).sum(1) / len(rows)
    assert shares.max() < 0.2
    assert max(shares[0], shares[-1]) < 0.01
    edges = np.array(plane.alignment_edges)
    assert edges == pytest.approx(-edges[::-1])
    held = np.histogram([row["alignment"] for row in rows], np.concatenate([[-9], edges[1:-1], [9]]))[0]
    assert np.array(plane.counts).sum(1) == pytest.approx(held, abs=2)  # edges are rounded


def test_steps_without_gradients_are_no_zeros(tmp_path: Path) -> None:
    """A run that went on with another signal: its first half has no self-influence, and one source less."""
    rows = [
        {"step": step, "source": ("web", "code")[place % 2 if step > 20 else 0], "weight": 0.1}
        | ({"self_influence": 2.0, "alignment": 0.1} if step > 20 else {})
        for step in range(1, 41)
        for place in range(10)
    ]
    found = {source.name: source for source in read_records(write_records(tmp_path, rows)).sources}
    assert [found[name].samples for name in ("web", "code")] == [300, 100]
    for source in found.values():
        assert source.mean_si == 2.0
        assert source.share_of_update == pytest.approx(0.5)
        assert source.times_share == pytest.approx(1.0)  # of half of the samples, where shares are known


def test_samples_that_pull_back_should_have_less_than_nothing(tmp_path: Path) -> None:
    """Of one norm; seven in ten have an alignment of 0.2, the others of −0.1: 0.11 on average."""
    rows = [
        {"step": step, "weight": 0.1, "self_influence": 1.0, "alignment": 0.2 if place < 7 else -0.1}
        for step in range(1, 101)
        for place in range(10)
    ]
    plane = read_records(write_records(tmp_path, rows)).plane
    assert plane is not None
    found = {
        round(best, 3): sum(row)
        for row, optimal in zip(plane.counts, plane.optimal, strict=True)
        for best in optimal
        if best
    }
    assert found == {round(0.2 / 0.11, 3): 700, round(-0.1 / 0.11, 3): 300}


def test_without_alignments_the_length_counts(tmp_path: Path) -> None:
    """As an older version recorded, without the column; and with weights that are not alike."""
    weights = np.array([0.1, 0.2, 0.3, 0.4])
    figures = read_records(write_records(tmp_path, rows_of(1, weights), without=("alignment", "momentum_alignment")))
    lengths = weights * np.linalg.norm(gradients(1, 4), axis=1)
    (step,) = figures.moved
    assert step.by == "norm"
    found = {sample.document_id: sample.share for sample in step.samples}
    expected = {f"d1-{place}": length / lengths.sum() for place, length in enumerate(lengths.tolist())}
    assert found == pytest.approx(expected, rel=1e-4)
    assert figures.plane is None
    assert "no alignments" in " ".join(figures.missing)
    assert figures.effective_share == pytest.approx(1 / (weights**2).sum() / 4)


@pytest.mark.parametrize("name", ["alignment", "self_influence", "vocabulary_influence"])
def test_files_of_two_versions(name: str, tmp_path: Path) -> None:
    """The first knew no such column; the others are read all the same, and its own figures are there without it."""
    for first, without in ((1, (name,)), (401, ())):
        rows = [row for step in range(first, first + 400) for row in rows_of(step, np.full(6, 1 / 6))]
        folder = write_records(tmp_path, rows, without=without)
    figures = read_records(folder)
    assert figures.missing == []
    assert sum(source.samples for source in figures.sources) == 4800
    assert figures.plane is not None
    assert sum(figures.plane.norm_counts) == (4800 if name == "vocabulary_influence" else 2400)
    found = {step.step > 400: step.by for step in figures.moved}
    assert found == {
        "alignment": {False: "norm", True: "alignment"},
        "self_influence": {True: "alignment"},
        "vocabulary_influence": {False: "alignment", True: "alignment"},
    }[name]  # fmt: skip


def test_what_does_not_count_has_no_share(tmp_path: Path) -> None:
    left_out = [
        {"has_targets": False, "weight": 0.0, "self_influence": 0.0, "alignment": 0.0},
        {"loss": float("nan"), "weight": 0.0, "self_influence": 1.0, "alignment": 0.0},
        {"weight": 0.0, "self_influence": 1e9, "alignment": 0.0},
    ]
    rows = [*rows_of(1, np.full(6, 1 / 6)), *({"step": 1, "document_id": "out", **row} for row in left_out)]
    figures = read_records(write_records(tmp_path, rows))
    assert sum(source.samples for source in figures.sources) == 6
    assert "out" not in {sample.document_id for sample in figures.moved[0].samples}
    none = read_records(write_records(tmp_path / "none", [{"step": 1, "weight": 0.0, **left_out[0]}]))
    assert none.missing == ["None of the recorded samples counts: see has_targets, loss and weight."]


def test_extremes_are_so_every_time(tmp_path: Path) -> None:
    """d0 has a high norm in each of three epochs, d1 in two of them, d2 is seen once."""
    draw = np.random.default_rng(0)
    rows = []
    for step in range(1, 91):
        norms = draw.uniform(0.9, 1.1, 20).tolist()
        names = [f"{(step - 1) % 30}-{place}" for place in range(20)]
        epoch, first = (step - 1) // 30, (step - 1) % 30 == 0
        if first:
            norms[:2], names[:2] = [30.0, 25.0 if epoch < 2 else 1.0], ["d0", "d1"]
        if step == 50:
            norms[0], names[0] = 40.0, "d2"
        rows += [
            {"step": step, "document_id": name, "weight": 0.05, "self_influence": norm, "alignment": 0.1}
            for name, norm in zip(names, norms, strict=True)
        ]
    found = {one.document_id: one for one in read_records(write_records(tmp_path, rows)).extremes}
    assert "d0" in found
    assert not {"d1", "d2"} & found.keys()
    assert found["d0"].steps == [1, 31, 61]
    assert found["d0"].times == 3
    assert found["d0"].least_norm > 5


def test_of_too_many_records_some_are_read(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {number: make_step(number) for number in range(1, 201)})
    folder = run / "scores"
    chosen = [Chosen(77, "spike", "it was high")]
    everything, some = read_records(folder, chosen), read_records(folder, chosen, most=1000)
    assert everything.records_share == 1.0
    assert everything.notes == []
    assert everything.records == some.records == 200 * 24
    assert 0.1 < some.records_share < 0.4
    assert "score records about" in some.notes[0]
    assert some.moved == [step for step in everything.moved if step.step == 77]  # which is read for itself
    few = sum(source.samples for source in some.sources)
    assert few == pytest.approx(some.records_share * some.records, rel=0.1)
    assert some.plane is not None


def test_ranges(tmp_path: Path) -> None:
    """All steps are in one range; of a sample, every range has steps of another part of the run."""
    run = write_run(tmp_path / "run", {number: make_step(number) for number in range(1, 201)})
    recorded = find_recorded(run / "scores")
    every = ranges_of(recorded, 10**6)
    assert [step for first, last in every.stretches for step in range(first, last + 1)] == list(range(1, 201))
    some = ranges_of(recorded, 500)
    steps = [step for first, last in some.stretches for step in range(first, last + 1)]
    assert steps == sorted(set(steps))
    assert some.share == len(steps) / 200
    assert steps[-1] > 150
    assert len(some.stretches) > 5  # row groups are small
    rows = [{"step": step, "weight": 1.0} for step in range(1, 2001)]
    large = find_recorded(write_records(tmp_path / "large", rows))
    assert len(ranges_of(large, 500).stretches) == 5  # all of them are in one


def test_files_that_are_none(tmp_path: Path) -> None:
    assert "There are no score records" in read_records(tmp_path / "nothing").missing[0]
    folder = write_records(tmp_path, rows_of(1, np.full(6, 1 / 6)))
    (folder / "ranks_00001-00001-steps_00000001-00000001.parquet").write_text("none")
    (folder / "ranks_00002-00002-steps_00000002.parquet.open").write_text("in progress")
    figures = read_records(folder)
    assert len(figures.missing) == 1
    assert "holds no score records" in figures.missing[0]
    assert sum(source.samples for source in figures.sources) == 6


def test_a_file_that_is_damaged(tmp_path: Path) -> None:
    """Its metadata are whole, and its pages are not; other files are read."""
    for first in (1, 101):
        steps = range(first, first + 100)
        folder = write_records(tmp_path, [row for step in steps for row in rows_of(step, np.full(6, 1 / 6))])
    file = sorted(folder.iterdir())[0]
    content = bytearray(file.read_bytes())
    content[4 : len(content) // 2] = bytes(len(content) // 2 - 4)
    file.write_bytes(content)
    figures = read_records(folder)
    (sentence,) = figures.missing
    assert f"{file} cannot be read" in sentence
    assert "nothing on steps 1 to 100" in sentence
    assert sum(source.samples for source in figures.sources) == 600
    assert min(step.step for step in figures.moved) > 100
