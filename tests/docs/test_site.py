"""``make docs``: the site is built without a warning, and is read without a network."""

import re
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
