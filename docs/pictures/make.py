"""Pictures of reports for docs/report.md, with chromium.

python docs/pictures/make.py RUN_DIR RUN_DIR [RUN_DIR ...]: a report of the first run, and one of all others together.
"""

import shutil
import sys
import tempfile
from base64 import b64decode
from pathlib import Path
from typing import NamedTuple

from playwright.sync_api import Page, sync_playwright

from presence_ds.trainer.report.page.page import render
from presence_ds.trainer.report.report import make_report

HERE = Path(__file__).parent


class Picture(NamedTuple):
    """A part of the page, of at most ``height`` pixels from ``top`` on.

    Attributes:
        before: script that is run before it is taken.
    """

    name: str
    top: str
    height: int
    width: int = 960
    theme: str = "light"
    before: str = ""


LAST_HIGH_LOSS = """
    const steps = [...document.querySelectorAll('[data-step]')];
    (steps.filter((one) => one.textContent.includes('◆')).at(-1) ?? steps.at(-1)).click();
"""
OF_ONE = (
    Picture("summary", "header", 430),
    Picture("moved", "#moved", 900, before=LAST_HIGH_LOSS),
    Picture("sources", "#sources", 690),
    Picture("worth", "#worth", 920),
    Picture("plane", "#plane", 1070),
    Picture("distributions", "#distributions", 470, theme="dark"),
    Picture("phone", "#loss", 720, width=360, theme="dark"),
)
OF_SEVERAL = (Picture("several", "header", 990), Picture("loss", "#loss", 1270))


def take(page: Page, picture: Picture) -> None:
    """Write a picture beside this file."""
    page.emulate_media(color_scheme=picture.theme)  # type: ignore[arg-type]
    page.set_viewport_size({"width": picture.width, "height": 900})
    page.reload()
    page.wait_for_selector("html[data-drawn]")
    if picture.before:
        page.evaluate(picture.before)
    page.wait_for_timeout(500)
    box = page.locator(picture.top).bounding_box()
    assert box is not None
    top = box["y"] + page.evaluate("scrollY")
    height = min(picture.height, page.evaluate("document.body.scrollHeight") - top)
    clip = {"x": 0, "y": top, "width": picture.width, "height": height, "scale": 1}
    session = page.context.new_cdp_session(page)
    settings = {"format": "webp", "quality": 80, "clip": clip, "captureBeyondViewport": True}  # playwright has no webp
    shot = session.send("Page.captureScreenshot", settings)
    (HERE / f"{picture.name}.webp").write_bytes(b64decode(shot["data"]))


def main() -> None:
    """Make the reports, open them without a network, and take all pictures."""
    first, *others = map(Path, sys.argv[1:])
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_context(offline=True).new_page()
        for runs, pictures in (([first], OF_ONE), (others, OF_SEVERAL)):
            path = Path(folder) / f"{len(runs)}.html"
            path.write_text(render(make_report(runs)))
            page.goto(path.as_uri())
            for picture in pictures:
                take(page, picture)
        browser.close()


if __name__ == "__main__":
    main()
