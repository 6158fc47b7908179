"""README, docs/ and what else is documentation, taken apart: links, headings, code."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.trainer.conftest import ROOT

README = ROOT / "README.md"
PATHS = [README, *sorted((ROOT / "docs").glob("**/*.md")), ROOT / "ds_configs" / "README.md"]


@dataclass(frozen=True)
class Code:
    """A block of code, or code in a line of text.

    Attributes:
        text: without fences or backticks.
        language: what the fence says; empty for a block without one, None in a line of text.
        where: file and line.
    """

    text: str
    language: str | None
    where: str


@dataclass
class Page:
    """What a markdown file holds.

    Attributes:
        links: file and line of every link, and what it names.
        anchors: of the headings, as GitHub and MyST make them.
        code: every piece of it.
    """

    path: Path
    links: list[tuple[str, str]] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)
    code: list[Code] = field(default_factory=list)

    def __post_init__(self) -> None:
        heading = False
        for token, where in self._tokens():
            if token.type == "heading_open":
                heading = True
            elif token.type == "heading_close":
                heading = False
            elif token.type in ("fence", "code_block"):
                self.code.append(Code(token.content, token.info.strip(), where))
            elif token.type == "inline":
                self._read_line(token, where, heading)

    def _tokens(self) -> Iterator[tuple[Token, str]]:
        line = 0
        for token in MarkdownIt("commonmark").enable("table").parse(self.path.read_text(encoding="utf-8")):
            line = token.map[0] + 1 if token.map else line  # cells of a table have none of their own
            yield token, f"{self.path.relative_to(ROOT)}:{line}"

    def _read_line(self, token: Token, where: str, heading: bool) -> None:
        parts = token.children or []
        if heading:
            title = "".join(part.content for part in parts if part.type in ("text", "code_inline"))
            self.anchors.add(re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-"))
        for part in parts:
            if part.type == "code_inline":
                self.code.append(Code(part.content, None, where))
            elif part.type in ("link_open", "image"):
                self.links.append((where, str(part.attrs.get("href", part.attrs.get("src")))))


PAGES = {path: Page(path) for path in PATHS}
CODE = [code for page in PAGES.values() for code in page.code]
