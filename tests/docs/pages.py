"""The documentation as data: its pages, their fenced blocks and their tables."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
#: Every page that a person writes; the generated ones are compared with the code by whoever generates them.
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^(#{1,6}) +(.+?)$", re.MULTILINE)
_BAR = re.compile(r"(?<!\\)\|")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the line of the page that the text begins on."""

    page: Path
    language: str
    text: str
    line: int


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[Block]:
    text = page.read_text()
    return [
        Block(page, found[1], found[2], text.count("\n", 0, found.start()) + 2)
        for found in _FENCE.finditer(text)
        if found[1] == language
    ]


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return _FENCE.sub("", page.read_text())


def headings(page: Path) -> list[str]:
    return [found[2] for found in _HEADING.finditer(prose(page))]


def section(page: str, heading: str) -> str:
    """The text of `docs/<page>` from a heading to the next one of its level or above."""
    text = prose(DOCS / page)
    for found in _HEADING.finditer(text):
        if found[2] == heading:
            rest = text[found.end() :]
            following = re.search(rf"^#{{1,{len(found[1])}}} ", rest, re.MULTILINE)
            return rest[: following.start()] if following else rest
    raise AssertionError(f"docs/{page} has no heading {heading!r}; it has {headings(DOCS / page)}")


def rows(text: str) -> list[list[str]]:
    """The rows of all tables in `text`, without their heads."""
    return [row for table in _tables(text) for row in table[2:]]


def first_column(text: str) -> list[str]:
    """The names in backticks in the first column; a cell may hold several."""
    return [name for row in rows(text) for name in re.findall(r"`([^`]+)`", row[0])]


def _tables(text: str) -> Iterator[list[list[str]]]:
    for lines in re.findall(r"(?:^\|.*\|\n?)+", text, re.MULTILINE):
        yield [[cell.strip().replace(r"\|", "|") for cell in _BAR.split(line)[1:-1]] for line in lines.splitlines()]
