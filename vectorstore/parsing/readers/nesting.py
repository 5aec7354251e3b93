"""How deeply a page is nested, told before it is parsed: a parser's time grows with each tag's depth.

Doesn't follow all the rules by which a browser closes elements. A page that is made to get past it meets the process's
time limit.
"""

import re
from collections import Counter

from vectorstore.parsing.values import Unparsable

#: Browsers build no more than 512 levels; more stand for elements that authors forgot to close.
_DEEPEST = 2000
#: What is in them is no markup. They end at their end tag, whatever stands before.
_RAW = {
    name: re.compile(f"</{name}", re.IGNORECASE)
    for name in ("script", "style", "textarea", "title", "xmp", "iframe", "noembed", "noframes")
}
_FOREIGN = {"svg", "math"}
#: An end tag inside of one of these closes nothing that was opened outside.
_CLOSED_OFF = {"table", "object", "applet", "marquee", "template", *_FOREIGN}
#: They hold nothing, or the next one of their kind ends them: often left open, and never nested for that.
_OPEN_AT_WILL = {
    *("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr"),
    *("html", "head", "body", "p", "li", "dd", "dt", "option", "optgroup", "rp", "rt", "a", "button", "nobr", "form"),
    *("tr", "td", "th", "thead", "tbody", "tfoot", "caption", "colgroup", "h1", "h2", "h3", "h4", "h5", "h6"),
}
_TAG = re.compile(
    rf"<(?:!--|(/?)(?!(?:{'|'.join(sorted(_OPEN_AT_WILL))})[\s/>])([a-z][a-z0-9:-]{{0,30}}))", re.IGNORECASE
)
_LONGEST_TAG = 2000


def check(text: str) -> None:
    """Raises Unparsable for a page that is nested too deeply."""
    if text.count("<") <= _DEEPEST:
        return
    nesting = _Nesting()
    place = 0
    while tag := _TAG.search(text, place):
        place = tag.end()
        name = (tag[2] or "").lower()
        if not name:
            place = text.find("-->", place - 2)
        elif tag[1]:
            nesting.shut(name)
        elif name in _RAW:
            end = _RAW[name].search(text, place)
            place = end.start() + 1 if end else -1
        elif not (nesting.foreign and _closes_itself(text, place)):
            nesting.open(name)
        if place < 0:
            return


def _closes_itself(text: str, place: int) -> bool:
    end = text.find(">", place, place + _LONGEST_TAG)
    return end > 0 and text[end - 1] == "/"


class _Nesting:
    """The open elements, by the closed-off ones that they stand in: how many of each name there are in each."""

    def __init__(self) -> None:
        self._areas: list[tuple[str, Counter[str], list[str]]] = [("", Counter(), [])]
        self._around: Counter[str] = Counter()
        self._depth = 0

    @property
    def foreign(self) -> bool:
        return self._areas[-1][0] in _FOREIGN

    def open(self, name: str) -> None:
        if name in _CLOSED_OFF:
            self._areas.append((name, Counter(), []))
            self._around[name] += 1
        else:
            _, counts, names = self._areas[-1]
            names.append(name)
            counts[name] += 1
        self._depth += 1
        if self._depth > _DEEPEST:
            raise Unparsable("parse_failed", f"is nested more than {_DEEPEST} levels deep")

    def shut(self, name: str) -> None:
        if self._around[name]:
            closed = ""
            while closed != name:
                closed, _, names = self._areas.pop()
                self._around[closed] -= 1
                self._depth -= 1 + len(names)
            return
        _, counts, names = self._areas[-1]
        if counts[name]:
            last = ""
            while last != name:
                last = names.pop()
                counts[last] -= 1
                self._depth -= 1
