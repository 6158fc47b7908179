"""Text from anywhere on a page: shown, and never obeyed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from presence_ds.trainer.report.page.page import render
from presence_ds.trainer.report.page.text import script_json, visible
from tests.trainer.report.page.conftest import Opened
from tests.trainer.report.page.reports import make_report

HOSTILE = (
    "</script><script>window.hacked = 1; alert(1)</script>",
    '<img src="http://example.org/x" onerror="window.hacked = 2">',
    '"><svg onload="window.hacked = 3"></svg>',
    "' onfocus='window.hacked = 4' autofocus='",
    "{{ 7 * 7 }}{% raw %}{# #}",
    "<!-- <script> ]]> <style>*{display:none}</style>",
    "\u202egnp.exe \u2066\u2069\u200b\ufeff",
    "nul \x00 bell \x07 escape \x1b[31m delete \x7f next \x85",
    "lines \u2028 and \u2029 apart",
    "lone \ud800 and bytes \udc80",
    "<base href='http://example.org/'><meta http-equiv='refresh' content='0;url=http://example.org/'>",
    "\\u003cscript\\u003e &lt;b&gt; &amp;",
    'datum["x"] javascript:alert(1) signal',
)
BIDI = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f")
ALL = "\n".join(HOSTILE)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hostile text in the place of everything that a run takes from somewhere."""
    path = tmp_path_factory.mktemp("hostile") / "report.html"
    names = " ".join(HOSTILE)
    texts = {"label": "{group} {seed} " + names.replace("{", "{{").replace("}", "}}"), "text": ALL, "document": names}
    texts = {name: text.replace("{place}", "") for name, text in texts.items()}
    texts["document"] = texts["document"].replace("{", "{{").replace("}", "}}")
    texts["source"] = "{name} " + texts["document"]
    path.write_text(render(make_report(["uniform", names], seeds=1, words=names, **texts)))
    return path


def test_it_is_shown_and_nothing_runs(hostile: Path, visit: Callable[..., Opened]) -> None:
    opened = visit(hostile)
    opened.page.wait_for_timeout(300)
    assert opened.all("window.hacked") is None
    assert opened.all("document.querySelectorAll('script').length") == 3
    assert (
        opened.all("document.querySelectorAll('img, base, meta[http-equiv=refresh], [onload], [onerror]').length") == 0
    )
    text = opened.page.locator(".step:visible blockquote").first.text_content()
    assert text == visible(ALL * 4)
    assert "<script>window.hacked = 1; alert(1)</script>" in text
    assert "\\u202egnp.exe" in text
    assert "nul \\x00 bell \\x07 escape \\x1b[31m" in text
    assert opened.all("getComputedStyle(document.querySelector('.step blockquote')).display") == "block"
    opened.check()


def test_tooltips_show_it_too(hostile: Path, visit: Callable[..., Opened]) -> None:
    opened = visit(hostile)
    marks = opened.page.locator('figure[data-plot="sources-0"] .mark-symbol path')
    marks.first.scroll_into_view_if_needed()
    marks.first.hover()
    opened.page.wait_for_selector("#vg-tooltip-element.visible")
    assert "<img src=" in opened.page.locator("#vg-tooltip-element").inner_text()
    assert opened.all("document.querySelectorAll('#vg-tooltip-element img').length") == 0
    assert opened.all("window.hacked") is None
    opened.check()


def test_a_script_that_got_in_would_not_run(hostile: Path, tmp_path: Path, visit: Callable[..., Opened]) -> None:
    """The page allows its own two scripts, by their hashes, and no other."""
    broken = tmp_path / "broken.html"
    inserted = "<script>window.hacked = 1</script><img src='x' onerror='window.hacked = 2'><h2"
    broken.write_text(hostile.read_text().replace("<h2", inserted, 1))
    opened = visit(broken)
    assert opened.all("window.hacked") is None
    assert any("Content Security Policy" in line for line in opened.said)


def test_no_byte_of_the_page_is_a_control() -> None:
    page = render(make_report(["a"], seeds=1, text=ALL, words=" ".join(HOSTILE)))
    ours = page[: page.index('<script type="application/json"')]
    assert not BIDI & set(ours)
    assert not [one for one in ours if ord(one) < 32 and one != "\n"]
    page.encode("utf-8")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\nb\r\nc", "a\nb\nc"),
        ("a\tb", "a\\tb"),
        ("\u202eabc", "\\u202eabc"),
        ("\x00\x1b[0m", "\\x00\\x1b[0m"),
        ("<b>ä中</b>", "<b>ä中</b>"),
        ("\udc80", "\\udc80"),
    ],
)
def test_visible(text: str, expected: str) -> None:
    assert visible(text) == expected


@pytest.mark.parametrize("value", ["</script>", "<!--", "\u2028", "&", {"</script>": ["<b>"]}])
def test_json_in_a_script(value: Any) -> None:
    text = script_json(value)
    assert text.isascii()
    assert not set("<>&") & set(text)
