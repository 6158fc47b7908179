"""What the page is made of, without a browser."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import altair as alt
import pytest
import vl_convert

from presence_ds.trainer.report.figures import Curve, Group, Report, RunFigures
from presence_ds.trainer.report.page.page import render
from presence_ds.trainer.report.page.size import MOST_BYTES, smaller
from presence_ds.trainer.report.page.tables import gaps_of
from presence_ds.trainer.report.page.text import compact, fixed, number, percent
from tests.trainer.report.page.reports import make_report

EMPTY = Report("2026-01-01T00:00:00+00:00", "0.1.0", runs=[RunFigures("run", "run")], missing=["There is no run yet."])


def data_of(page: str) -> dict:
    """The specs and tables of a page."""
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page)[1])


def plots(page: str) -> Iterator[dict]:
    """Whole specs with their data."""
    data = data_of(page)
    for plot in data["plots"].values():
        tables = {name: data["tables"][name] for name in plot["data"]}
        rows = {
            name: [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
            for name, table in tables.items()
        }
        yield plot["spec"] | {"datasets": rows}


def test_specs_are_such_as_vega_lite_takes() -> None:
    found = 0
    for spec in plots(render(make_report(seeds=1))):
        alt.Chart.from_dict(spec)  # validates it
        vl_convert.vegalite_to_vega(spec)
        found += 1
    assert found > 20


def test_it_is_one_file() -> None:
    page = render(make_report())
    assert len(page.encode()) < 2_000_000
    assert not re.search(r"<link[^>]+href=\"(?!data:)|<script[^>]+src=|@import|url\((?!#)", page.split("<script")[0])


def test_losses_are_of_groups_and_of_the_run_that_is_shown() -> None:
    tables = data_of(render(make_report()))["tables"]
    assert set(tables["loss"]["series"]) == {"calibrated", "uniform"}
    bounds = (tables["loss"][name] for name in ("low", "mean", "high"))
    assert all(low < mean < high for low, mean, high in zip(*bounds, strict=True))
    assert set(tables["loss-run"]["run"]) == {0, 1, 2, 3}
    assert tables["loss-marks"]["key"][:3] == ["0-400", "0-700", "0-1000"]
    assert tables["loss-marks"]["tokens"][:2] == [400 * 4096, 700 * 4096]


def test_marks_stand_at_their_steps_over_tokens_and_hours() -> None:
    run = make_report(["a"], seeds=1).runs[0]
    curve = Curve([100, 200], [1000, 3000], [1.0, None], [5.0, 4.0], [5.0, 4.0], [5.0, 4.0])
    moved = [replace(run.moved[0], step=step) for step in (50, 150, 250)]
    run = replace(run, curves={"loss": curve}, moved=moved)
    marks = data_of(render(replace(EMPTY, runs=[run], groups=[Group("a", [0])])))["tables"]["loss-marks"]
    assert marks["tokens"] == [500, 2000, 3000]
    assert marks["hours"] == [0.5, None, None]


def test_captions_say_what_is_there() -> None:
    """Of a run without records and one of a few steps: nothing of diamonds, marks and errors that are not drawn."""
    report = make_report(["a", "b"], seeds=1)
    bare, short = report.runs
    sources = [replace(source, share_of_update=None) for source in bare.sources]
    bare = replace(bare, records=0, sources=sources, moved=[], extremes=[], worth=None)
    short = replace(short, plane=replace(short.plane, norm_error=[None] * 20))
    page = render(replace(report, runs=[bare, short]))
    captions = {name: plot["spec"]["description"] for name, plot in data_of(page)["plots"].items()}
    assert "diamond" not in captions["sources-0"]
    assert "diamond" in captions["sources-1"]
    assert set(data_of(page)["tables"]["sources-0"]["kind"]) == {"share of the samples", "weight mass"}
    assert "standard error" not in captions["norm-1"]
    assert "twice its standard error" in data_of(render(report))["plots"]["norm-1"]["spec"]["description"]
    assert page.count("of the logged steps only") == 1
    extremes = page.split('id="extremes"')[1].split("<section")[0]
    assert "There are no score records to tell from." in extremes
    assert "no sample was extreme twice" not in extremes
    assert "presence.alignment: true" not in page
    assert "seeds" not in captions["loss"]
    assert "mean of its seeds' hours" in data_of(render(make_report()))["plots"]["loss"]["spec"]["description"]


def test_recipes_differ_by_group() -> None:
    table = render(make_report()).split("Fields in which the recipes differ</span>")[1].split("</table>")[0]
    assert re.findall(r"<th[^>]*>(?:<code>)?([^<]+)", table) == [
        "Field",
        "calibrated",
        "uniform",
        "presence.preset",
        "training.seed",
    ]
    assert re.findall(r"<td[^>]*>([^<]*)", table) == ["calibrated", "uniform", "0, 1", "0, 1"]


@pytest.mark.parametrize(("version", "asks"), [(None, False), ("1", True)])
def test_a_page_that_stays_asks_for_nothing(version: str | None, asks: bool) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]*)', render(EMPTY, version))[1]
    assert ("connect-src" in policy) == asks


def test_what_is_missing_is_said() -> None:
    page = render(make_report())
    assert "No learning rate is logged." in page
    assert page.count("The corpus is gone") == 1  # of all runs alike
    assert "<h3>All 4 runs</h3>" in page
    runs = make_report(seeds=1).runs
    gaps = gaps_of([replace(runs[0], notes=["Sampled."]), replace(runs[1], missing=["No text."], notes=["Sampled."])])
    assert gaps == [
        (runs[0].label, ["The corpus is gone: there are no texts of extreme samples."]),
        ("All 2 runs", ["Sampled."]),
        (runs[1].label, ["No text."]),
    ]


@pytest.mark.parametrize("report", [EMPTY, replace(EMPTY, runs=[])])
def test_there_may_be_nothing_to_say(report: Report, tmp_path: Path) -> None:
    page = render(report)
    assert "There is no run yet." in page
    assert (data := data_of(page))["plots"] == data["tables"] == {}


def test_a_page_of_nothing_is_a_page(tmp_path: Path, visit) -> None:
    (tmp_path / "report.html").write_text(render(EMPTY))
    opened = visit(tmp_path / "report.html")
    opened.check()
    assert opened.page.locator("figure").count() == 0
    assert opened.page.locator("h2").count() > 10


def test_it_does_not_grow_without_bound() -> None:
    report = make_report(seeds=1)
    whole = len(render(report).encode())
    text = report.runs[0].moved[0].samples[0].text * 10
    moved = [replace(step, samples=[replace(one, text=text) for one in step.samples]) for step in report.runs[0].moved]
    long = replace(report, runs=[replace(run, moved=moved) for run in report.runs])
    page = render(long, most_bytes=whole + 20_000)
    assert len(page.encode()) <= whole + 20_000
    assert "texts end after 120 characters" in page
    assert "texts end after" not in render(long)
    page = render(long, most_bytes=whole - 20_000)
    assert len(page.encode()) <= whole - 20_000
    assert "figures of samples" in page
    assert whole < MOST_BYTES
    left_out = [made.missing[-1] for made in smaller(report)]
    assert [words.split(", and ")[-1].split(" figures")[0] for words in left_out[2:]] == [
        "only the first run has",
        "no run has",
    ]


def test_numbers() -> None:
    assert [number(value) for value in (None, 0, 1234567, 12345.6, 5.74827, 0.00123456, 1.2e-7, -0.5)] == (
        ["–", "0", "1,234,567", "12,346", "5.748", "0.001235", "1.200e-07", "-0.5000"]
    )
    assert [compact(value) for value in (None, 512, 12_345, 4_915_200, 3e12)] == ["–", "512", "12.3 k", "4.92 M", "3 T"]
    assert [percent(0.1234), percent(-0.08), percent(None), fixed(-1.005)] == ["12.3 %", "−8.0 %", "–", "−1.00"]
