"""A real browser without a network, and pages in it."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from presence_ds.trainer.report.page.page import render
from tests.trainer.report.page.reports import make_report

CHROMIUM = shutil.which("chromium")
QUIET = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-gpu"]


@dataclass
class Opened:
    """A page in the browser.

    Attributes:
        page: of playwright.
        said: by the console, and errors that nothing caught.
        asked: addresses that it wanted beside its own.
    """

    page: Any
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def all(self, script: str) -> Any:
        """What ``script`` makes of the elements of the page."""
        return self.page.evaluate(script)

    @property
    def undrawn(self) -> list[str]:
        """Visible plots without a mark that has a place and a size."""
        return self.all(
            """() => [...document.querySelectorAll("figure[data-plot]")].filter((one) => one.offsetParent &&
                ![...one.querySelectorAll("svg g.role-mark path, svg g.role-mark line")].some((mark) => {
                    const {width, height} = mark.getBoundingClientRect();
                    return width + height > 1;
                })).map((one) => one.dataset.plot)"""
        )

    def check(self) -> None:
        """All is drawn, nothing went wrong, and nothing was asked of a network."""
        assert self.undrawn == []
        assert self.said == []
        assert self.asked == []


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("there is no chromium on this machine: make chromium-packages")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield opened
        opened.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Opened]]:
    """Open a file, or an address of this machine, with settings of a browser's context."""
    contexts = []

    def visited(address: Path | str, **settings: Any) -> Opened:
        local = isinstance(address, Path)
        context = browser.new_context(offline=local, **{"viewport": {"width": 1100, "height": 800}} | settings)
        contexts.append(context)
        opened = Opened(context.new_page())
        address = address.as_uri() if isinstance(address, Path) else address
        opened.page.on("console", lambda message: opened.said.append(f"{message.type}: {message.text}"))
        opened.page.on("pageerror", lambda error: opened.said.append(str(error)))
        opened.page.on("dialog", lambda dialog: (opened.said.append(dialog.message), dialog.dismiss()))
        opened.page.on("request", lambda request: request.url.startswith(address) or opened.asked.append(request.url))
        opened.page.goto(address)
        opened.page.wait_for_selector("html[data-drawn]", timeout=60_000)
        return opened

    yield visited
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a report of two groups of two seeds."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render(make_report()))
    return path
