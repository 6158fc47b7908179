"""Reports in a real browser without a network."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from presence_ds.trainer.report.page.page import render
from presence_ds.trainer.report.report import make_report
from tests.trainer.report.page import reports
from tests.trainer.report.page.conftest import Opened
from tests.trainer.report.runs import write_metrics, write_recipe, write_records

Visit = Callable[..., Opened]

LONG = "calibrated weights, steps 300, features norm, loss, vocabulary"
CONTRASTS = """() => {
    const probe = document.body.appendChild(document.createElement("i"));
    const light = (name) => {
        probe.style.color = `var(--${name})`;
        const parts = getComputedStyle(probe).color.match(/[\\d.]+/g).slice(0, 3).map((part) => {
            const share = part / 255;
            return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
    };
    const lines = [1, 2, 3, 4, 5, 6, 7, 8].map((number) => `line-${number}`);
    const names = ["text", "muted", "accent", "good", "bad", "look", "mark", ...lines];
    const paper = light("paper");
    return Object.fromEntries(names.map((name) => {
        const [high, low] = [light(name), paper].sort((a, b) => b - a);
        return [name, (high + 0.05) / (low + 0.05)];
    }));
}"""


def shown_step(opened: Opened) -> str:
    """The steps whose documents are seen."""
    return opened.all("[...document.querySelectorAll('.step')].filter((one) => one.offsetParent).map((one) => one.id)")


def mark_of(opened: Opened, step: int) -> dict[str, float]:
    """Where the mark of a step is."""
    selector = f'figure[data-plot="loss"] path[aria-label*="step: {step:,};"]'
    marks = opened.page.locator(selector)
    assert marks.count() == 1, selector
    marks.scroll_into_view_if_needed()
    return marks.bounding_box()


def test_every_plot_is_drawn_of_every_run(made: Path, visit: Visit) -> None:
    opened = visit(made)
    assert opened.page.locator(".plot svg").count() > 15
    for plot in ("plane-0-density", "worth-0"):  # a line at 0, or 1, and not one for every row
        lines = f'figure[data-plot="{plot}"] .mark-rule line[stroke-dasharray="3,3"]'
        assert opened.page.locator(lines).count() == 1
    opened.check()
    opened.page.select_option("#run", "3")
    opened.page.wait_for_selector('figure[data-plot="plane-3-density"] svg path')
    assert opened.page.locator(".of-run").first.is_hidden()
    opened.page.wait_for_function("document.querySelectorAll('.of-run[data-run=\"3\"] .plot svg').length > 5")
    opened.page.wait_for_timeout(300)
    opened.check()


def test_a_click_on_a_spike_shows_its_documents(made: Path, visit: Visit) -> None:
    opened = visit(made)
    assert shown_step(opened) == ["step-0-400"]
    for step in (1000, 400):  # the latter is a spike
        box = mark_of(opened, step)
        opened.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        opened.page.wait_for_function(f"document.getElementById('step-0-{step}').offsetParent !== null")
        assert shown_step(opened) == [f"step-0-{step}"]
        article = opened.page.locator(f"#step-0-{step}")
        assert f"Step {step}: the quick brown fox" in article.inner_text()
        assert all(word in article.inner_text() for word in ("weight", "n / mean", "loss", "web.jsonl:1", "%"))
        assert article.locator("h3").evaluate("(one) => one === document.activeElement")
    opened.check()


def test_it_is_used_by_keyboard(made: Path, visit: Visit) -> None:
    opened = visit(made)
    keys = opened.page.keyboard
    focused = "document.activeElement"
    keys.press("Tab")
    assert opened.all(f"{focused}.className") == "skip"
    assert opened.page.locator(".skip").bounding_box()["y"] >= 0
    keys.press("Enter")
    assert opened.all("location.hash") == "#main"
    opened.page.locator('[data-axis="step"]').focus()
    keys.press("Tab")
    assert opened.all(f"getComputedStyle({focused}).outlineStyle") == "solid"
    keys.press("Enter")
    opened.page.wait_for_selector('figure[data-plot="loss"] svg text:text("Tokens")')
    assert opened.page.locator('figure[data-plot="validation"] svg text:text("Tokens")').count() == 1
    opened.page.locator('[data-step="0-400"]').focus()
    keys.press("ArrowRight")
    assert shown_step(opened) == ["step-0-700"]
    keys.press("Tab")
    keys.press("Enter")
    assert shown_step(opened) == ["step-0-1000"]
    assert opened.page.locator('[data-step="0-1000"]').get_attribute("aria-pressed") == "true"
    opened.check()


def test_the_end_of_the_curves_is_looked_at_more_closely(made: Path, visit: Visit) -> None:
    opened = visit(made)
    assert opened.page.locator('figure[data-plot="loss"] path[aria-label*="step: 400;"]').count() == 1
    opened.page.get_by_role("button", name="Last half").click()
    opened.page.wait_for_selector('figure[data-plot="loss"] path[aria-label*="step: 400;"]', state="detached")
    assert opened.page.locator('figure[data-plot="loss"] path[aria-label*="step: 1,000;"]').count() == 1
    opened.check()


def test_dark_and_light(made: Path, visit: Visit) -> None:
    opened = visit(made, color_scheme="dark")
    line = "getComputedStyle(document.querySelector('figure[data-plot=\"loss\"] .mark-line path')).stroke"
    paper = "getComputedStyle(document.body).backgroundColor"
    dark = opened.all(f"[{line}, {paper}]")
    contrasts = [opened.all(CONTRASTS)]
    opened.page.get_by_role("button", name="Light").click()
    light = opened.all(f"[{line}, {paper}]")
    contrasts.append(opened.all(CONTRASTS))
    assert light[1] == "rgb(255, 255, 255)"
    assert all(one != other for one, other in zip(dark, light, strict=True))
    for theme in contrasts:
        lines = {name: ratio for name, ratio in theme.items() if name.startswith("line")}
        assert len(lines) == 8
        assert min(lines.values()) > 3  # of WCAG for graphics
        assert min(ratio for name, ratio in theme.items() if name not in lines) > 4.5  # and for text
    opened.page.reload()
    opened.page.wait_for_selector("html[data-drawn]")
    assert opened.all(paper) == "rgb(255, 255, 255)"  # what was chosen is kept
    opened.check()


@pytest.fixture(scope="module")
def long_names(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of groups whose names differ at their ends only."""
    path = tmp_path_factory.mktemp("long") / "report.html"
    path.write_text(render(reports.make_report([LONG, f"{LONG}, momentum", f"{LONG}, clipped"], seeds=1)))
    return path


@pytest.mark.parametrize("width", [360, 800, 1100])
def test_it_fits_a_screen(width: int, long_names: Path, visit: Visit) -> None:
    opened = visit(long_names, viewport={"width": width, "height": 700})
    keys = opened.page.locator('figure[data-plot="loss"] .colours li')
    assert [name.strip() for name in keys.all_inner_texts()] == [LONG, f"{LONG}, momentum", f"{LONG}, clipped"]
    assert len({keys.nth(place).locator("line").get_attribute("stroke-dasharray") for place in range(3)}) == 3
    ends = opened.all("[...document.querySelectorAll('.colours li')].map((one) => one.getBoundingClientRect().right)")
    assert max(ends) <= width
    assert opened.all("document.documentElement.scrollWidth") <= width
    ends = opened.all("[...document.querySelectorAll('figure svg')].map((one) => one.getBoundingClientRect().right)")
    assert max(ends) <= width
    cut = """() => [...document.querySelectorAll("figure svg")].filter((one) => one.getBoundingClientRect().width)
        .flatMap((one) => [...one.querySelectorAll("text")].filter((text) => {
            const [inner, outer] = [text.getBoundingClientRect(), one.getBoundingClientRect()];
            const out = inner.left < outer.left - 1 || inner.right > outer.right + 1;
            return inner.width && (out || text.textContent.endsWith("…"));
        }).map((text) => `${one.closest("figure").dataset.plot}: ${text.textContent}`))"""
    assert opened.all(cut) == []
    opened.check()


def test_it_is_printed_in_light_colours_without_buttons(made: Path, visit: Visit) -> None:
    opened = visit(made, color_scheme="dark")
    opened.page.emulate_media(media="print", color_scheme="dark")
    opened.page.set_viewport_size({"width": 700, "height": 900})
    assert opened.all("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    seen = "[...document.querySelectorAll('button, select, nav')].filter((one) => one.offsetParent).length"
    assert opened.all(seen) == 0
    ends = opened.all("[...document.querySelectorAll('figure svg')].map((one) => one.getBoundingClientRect().right)")
    assert max(ends) <= 700
    assert len(opened.page.pdf(format="A4")) > 20_000
    parts = ["body", "figcaption", "thead th", "tbody td"]
    sizes = "(parts) => parts.map((one) => parseFloat(getComputedStyle(document.querySelector(one)).fontSize))"
    body, caption, head, cell = opened.page.evaluate(sizes, parts)
    assert head == cell < caption < body < 14
    assert opened.said == []


def test_without_scripts_all_runs_and_steps_are_seen(made: Path, browser: Any) -> None:
    context = browser.new_context(offline=True, java_script_enabled=False)
    page = context.new_page()
    page.goto(made.as_uri())
    for part in (".of-run", ".step"):
        assert page.locator(f"{part}:visible").count() == page.locator(part).count() > 4
    context.close()


def test_it_is_read_without_seeing_it(made: Path, visit: Visit) -> None:
    opened = visit(made)
    levels = opened.all("[...document.querySelectorAll('h1, h2, h3, h4')].map((one) => Number(one.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert opened.all("[...document.querySelectorAll('table')].every((one) => one.caption && one.tHead)")
    assert opened.all("[...document.querySelectorAll('th')].every((one) => one.scope)")
    assert opened.all("[...document.querySelectorAll('.plot:has(svg)')].every((one) => one.ariaLabel)")
    ids = opened.all("[...document.querySelectorAll('[id]')].map((one) => one.id)")
    targets = opened.all("[...document.querySelectorAll('a[href^=\"#\"]')].map((one) => one.hash.slice(1))")
    ours = [one for one in ids if not one.startswith(("clip", "gradient"))]
    assert len({*ours}) == len(ours)
    assert {*targets} <= {*ids}
    assert opened.all("document.documentElement.lang") == "en"


def test_runs_of_which_little_is_known(tmp_path: Path, visit: Visit) -> None:
    """One step, no tokens, figures that are not finite, no alignments, nothing at all: what there is is drawn."""
    lines = [{"step": step, "loss": 2.0, "tokens": 10 * step, "gradient_norm": 0.0} for step in (1, 2, 3)]
    rows = [
        {"step": step, "self_influence": norm, "alignment": 0.1, "weight": 0.5}
        for step in (1, 2)
        for norm in (1.0, 2.0)
    ]
    runs = [write_recipe(tmp_path / name) for name in ("one", "bare", "nan", "nothing", "same", "plane", "norms")]
    one, bare, nan, _, same, plane, norms = runs
    write_metrics(one, lines[:1])
    write_metrics(bare, [{"step": step, "loss": 3.0 - step} for step in (1, 2)])
    write_metrics(nan, ['{"step": 1, "loss": NaN}\n', '{"step": 2, "loss": 2.0}\n', '{"step": 3, "lo'])
    for run in (same, plane, norms):
        write_metrics(run, lines)
    write_records(plane, rows[:1])
    write_records(norms, [{**row, "alignment": None} for row in rows])
    (tmp_path / "report.html").write_text(render(make_report(runs)))
    opened = visit(tmp_path / "report.html")
    assert opened.page.input_value("#run") == str(runs.index(plane))  # the first of which there are documents
    assert opened.page.locator(".of-run:visible .step").count() == 1
    for number in range(len(runs)):
        opened.page.select_option("#run", str(number))
        figures = f"[...document.querySelectorAll('.of-run[data-run=\"{number}\"] figure')]"
        opened.page.wait_for_function(f"{figures}.every((one) => one.querySelector('.plot svg'))")
        opened.check()
    assert opened.page.locator("[data-axis]").all_text_contents() == ["Step", "Tokens"]
    assert opened.page.locator('figure[data-plot="loss"]').count() == 1
