"""The marks `[n]` in an answer: those of passages that the prompt had stay, others go: a model cites what it got.

Marks in code (between backticks) and texts of links are none of ours. A piece of text is held back while it may still
become a mark: a few characters at most.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

_TOKEN = re.compile(r"(?P<code>`+)|(?P<lead> ?)\[(?P<numbers>\d{1,3}(?:\s{0,2},\s{0,2}\d{1,3}){0,9})\](?P<link>[(:])?")
#: What may go on in the next piece.
_OPEN = re.compile(r"(?: ?\[[\d,\s]{0,60}\]?| |`+)$")
_CITED = re.compile(r"\[(\d{1,3}(?:\s{0,2},\s{0,2}\d{1,3}){0,9})\]")


class Marks:
    """Reads an answer piece by piece. `hits` are the passages in its prompt; `n` of each is its mark."""

    __slots__ = ("_code", "_held", "_known")

    def __init__(self, hits: Collection[Mapping[str, Any]]) -> None:
        self._known = frozenset(int(hit["n"]) for hit in hits)
        self._held = ""
        self._code = ""

    def feed(self, text: str) -> str:
        """What of the answer is certain by now; may be empty."""
        if not self._held and "[" not in text and "`" not in text and not text.endswith(" "):
            return text
        whole = self._held + text
        held = _OPEN.search(whole)
        at = held.start() if held else len(whole)
        self._held = whole[at:]
        return self._resolved(whole[:at])

    def rest(self) -> str:
        """What was held back, when nothing more comes."""
        held, self._held = self._held, ""
        return self._resolved(held)

    def _resolved(self, text: str) -> str:
        return _TOKEN.sub(self._one, text)

    def _one(self, found: re.Match[str]) -> str:
        ticks = found["code"]
        if ticks:
            if not self._code:
                self._code = ticks
            elif self._code == ticks:
                self._code = ""
            return found[0]
        if self._code or found["link"]:
            return found[0]
        kept = [number for number in re.split(r"\s*,\s*", found["numbers"]) if int(number) in self._known]
        return f"{found['lead']}[{', '.join(kept)}]" if kept else ""


def resolved(text: str, hits: Collection[Mapping[str, Any]]) -> str:
    """A whole answer."""
    marks = Marks(hits)
    return marks.feed(text) + marks.rest()


def cited(text: str, hits: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The hits, each with `cited`: whether the answer bears its mark."""
    numbers = {int(number) for found in _CITED.finditer(text) for number in found[1].split(",")}
    return [{**hit, "cited": int(hit["n"]) in numbers} for hit in hits]
