"""Documents cut into passages. A passage is a verbatim piece of the text, `text[start:end]`, so that a citation can
open at its place. Imports LangChain's splitters, so it is itself imported on first use.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import chain

from langchain_text_splitters import Language, RecursiveCharacterTextSplitter

_HEADING = re.compile(r"^ {0,3}(#{1,6})[ \t](.*)$", re.MULTILINE)
_FENCE = re.compile(r"^ {0,3}(```|~~~).*?(?:^ {0,3}\1|\Z)", re.MULTILINE | re.DOTALL)
_WORD_START = re.compile(r"\s")


@dataclass(frozen=True, kw_only=True)
class Passage:
    """Characters `start` to `end` of a document; `headings` lead to it, outermost first."""

    text: str
    start: int
    end: int
    headings: tuple[str, ...] = ()


def split(text: str, *, markdown: bool, size: int, overlap: int) -> list[Passage]:
    """Passages of at most `size` characters, overlapping by up to `overlap`; Markdown is cut at its headings first."""
    overlap = min(overlap, size // 2)
    splitter = _splitter(markdown, size - overlap)
    sections = _sections(text) if markdown else iter([(0, len(text), ())])
    return [
        Passage(text=text[start:end], start=start, end=end, headings=headings)
        for section_start, section_end, headings in sections
        for start, end in _pieces(text[section_start:section_end], section_start, splitter, overlap)
    ]


def title_of(text: str) -> str:
    """The first heading of a Markdown text, or nothing."""
    return next((name for _, _, name, _ in _headings(text) if name), "")


def _pieces(
    section: str, offset: int, splitter: RecursiveCharacterTextSplitter, overlap: int
) -> Iterator[tuple[int, int]]:
    """Where the section's pieces stand in the text.

    The splitter is told to drop nothing and to overlap nothing, so its pieces put together are the section, and their
    places follow from their lengths; looking for a piece would find an earlier one where a text repeats itself.
    """
    at = 0
    for piece in splitter.split_text(section):
        words = piece.strip()
        if words:
            start = at + piece.index(words)
            yield offset + _overlapping(section, start, overlap), offset + start + len(words)
        at += len(piece)


def _overlapping(section: str, start: int, overlap: int) -> int:
    """`start` moved back by at most `overlap` characters, to the beginning of a word."""
    before = section[max(0, start - overlap) : start]
    word = _WORD_START.search(before) if len(before) < start else None
    kept = before[word.end() :] if word else before if len(before) == start else ""
    return start - len(kept.lstrip())


def _sections(text: str) -> Iterator[tuple[int, int, tuple[str, ...]]]:
    """A Markdown text from heading to heading, each with its path of headings."""
    path: list[tuple[int, str]] = []
    start = body = 0
    for at, level, name, end in chain(_headings(text), [(len(text), 0, "", len(text))]):
        # A heading without a text of its own stays with the section below it; at the end there is none below.
        if text[body if level else start : at].strip():
            yield start, at, tuple(each for _, each in path if each)
            start = at
        path = [*(step for step in path if step[0] < level), (level, name)]
        body = end


def _headings(text: str) -> Iterator[tuple[int, int, str, int]]:
    """Position, level, name and end of each heading; `#` in a fenced block is none."""
    fences = _FENCE.finditer(text)
    fence = next(fences, None)
    for found in _HEADING.finditer(text):
        while fence and fence.end() <= found.start():
            fence = next(fences, None)
        if not (fence and fence.start() <= found.start()):
            yield found.start(), len(found[1]), found[2].strip().rstrip("#").rstrip(), found.end()


@cache
def _splitter(markdown: bool, size: int) -> RecursiveCharacterTextSplitter:
    separators = RecursiveCharacterTextSplitter.get_separators_for_language(Language.MARKDOWN) if markdown else None
    return RecursiveCharacterTextSplitter(
        separators=separators,
        is_separator_regex=markdown,
        keep_separator=True,
        strip_whitespace=False,
        chunk_size=size,
        chunk_overlap=0,
    )
