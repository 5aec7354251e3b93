"""The text that a reader makes, bounded, and the little Markdown that gives it its shape."""

import re

from vectorstore.parsing.values import Unparsable

#: Marks that would make a line of text a heading or open a block of code.
_MARK = re.compile(r"^( {0,3})(#{1,6}(?=[ \t])|```|~~~)", re.MULTILINE)
_SPACE = re.compile(r"\s+")
_LONGEST_HEADING = 300


class Output:
    """Pieces of text in order. `add` raises Unparsable as soon as there are too many characters."""

    def __init__(self, most_chars: int) -> None:
        self._most = most_chars
        self._pieces: list[str] = []
        self.length = 0

    def add(self, piece: str) -> None:
        self.length += len(piece)
        if self.length > self._most:
            reason = f"has more than {self._most} characters of text; split it or raise VECTOR_STORE['MAX_TEXT_CHARS']"
            raise Unparsable("too_large", reason)
        self._pieces.append(piece)

    def paragraph(self, text: str) -> None:
        """A paragraph of its own, as it stands; an empty one is left out."""
        if text.strip():
            self.add(("\n\n" if self._pieces else "") + text.strip("\n"))

    def heading(self, level: int, name: str) -> None:
        if name := one_line(name)[:_LONGEST_HEADING]:
            self.paragraph(f"{'#' * min(max(level, 1), 6)} {name}")

    def __str__(self) -> str:
        return "".join(self._pieces)


def one_line(text: str) -> str:
    return _SPACE.sub(" ", text).strip()


def plain(text: str) -> str:
    """Text that stays text in Markdown: its lines become no headings and open no code."""
    return _MARK.sub(r"\1\\\2", text)
