"""``make docs``: the site is built without a warning, and is read without a network."""

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.docs.pages import PATHS
from tests.trainer.conftest import ROOT

pytest.importorskip("sphinx", reason="the docs extra is not installed")

ELSEWHERE = re.compile(r"(?:https?:)?//")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d", folder / "doctrees"]
    built = subprocess.run([*build, ROOT / "docs", folder / "html"], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return folder / "html"


class Loaded(HTMLParser):
    """What a browser loads by itself for a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = {"link": ("href",), "a": ()}.get(tag, ("src", "srcset", "data", "poster"))
        self.found += [value for name, value in attrs if name in names and value]


def test_every_page_is_in_it_and_can_be_searched(site: Path) -> None:
    index = (site / "searchindex.js").read_text()
    for path in PATHS:
        if path.parent == ROOT / "docs":
            assert (site / f"{path.stem}.html").is_file()
            assert f'"{path.stem}"' in index


def test_it_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert pages
    for page in pages:
        loaded = Loaded(page.read_text()).found
        assert any(name.endswith(".css") or ".css?" in name for name in loaded)
        assert not [name for name in loaded if ELSEWHERE.match(name)], page.name
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", sheet.read_text()), sheet.name


@pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no chromium on this machine")
def test_a_browser_finds_words_without_a_server(site: Path, tmp_path: Path) -> None:
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    quiet += ["--disable-quic", "--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path}"]
    for words, page in (("preemption", "slurm.html"), ("cheeseburger", None)):
        address = (site / "search.html").as_uri() + f"?q={words}"
        browse = ["chromium", *quiet, "--virtual-time-budget=20000", "--dump-dom", address]
        shown = subprocess.run(browse, capture_output=True, text=True, timeout=300).stdout
        assert ("Search finished" in shown) == (page is not None)
        assert ("did not match any documents" in shown) == (page is None)
        assert page is None or f'href="{page}' in shown.partition("Search finished")[2]
