"""What was measured, against what it is held, and the table of it."""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median

_started = time.monotonic()


@dataclass(frozen=True)
class Aim:
    """At most `limit`, as a value or as a multiple of the peer's; `cheaper`: at most one `limit`-th of the peer's."""

    limit: float
    cheaper: bool = False

    def text(self, value: float, peer: float | None, unit: str) -> str:
        if peer is None:
            return f"≤ {self.limit:g} {unit} {_mark(value <= self.limit)}"
        if self.cheaper:
            return f"≥ {self.limit:g} x cheaper {_mark(value * self.limit <= peer)}"
        return f"≤ {self.limit:g} x {_mark(value <= self.limit * peer)}"


@dataclass
class Measure:
    """One thing measured on several servers, round by round; the first one's is what peers are compared with."""

    what: str
    unit: str
    #: Server → a value for each round.
    values: dict[str, list[float]] = field(default_factory=dict)
    #: Server → what is asked of *our* value, against that server's.
    aims: dict[str, Aim] = field(default_factory=dict)
    #: Printed below the table.
    notes: list[str] = field(default_factory=list)

    def add(self, server: str, value: float) -> None:
        self.values.setdefault(server, []).append(value)

    def lines(self) -> Iterator[str]:
        (first, ours), *_ = self.values.items()
        for name, rounds in self.values.items():
            own = name == first
            ratio = "" if own else _ratio(min(ours), min(rounds))
            aim = self.aims.get(name)
            asked = aim.text(min(ours), None if own else min(rounds), self.unit) if aim else ""
            title = self.what if own else ""
            best, middle = _number(min(rounds)), _number(median(rounds))
            yield f"| {title} | {name} | {best} {self.unit} | {middle} | {ratio} | {asked} |"


def table(measures: list[Measure]) -> str:
    """All measures as one Markdown table, with the notes below."""
    head = ["| measure | server | best round | median | ours ÷ this | aim |", "|---|---|--:|--:|---|---|"]
    lines = [line for measure in measures for line in measure.lines()]
    notes = [f"- {note}" for measure in measures for note in measure.notes]
    return "\n".join([*head, *lines, "", *notes])


def rounds(count: int, *, seconds: float, warm_up: bool = True) -> Iterator[int]:
    """Numbers from 1 to `count`, with a 0 before them to warm up; on a busy machine fewer, when the time is over."""
    until = time.monotonic() + seconds
    for number in range(0 if warm_up else 1, count + 1):
        if number > 1 and time.monotonic() > until:
            progress(f"the time is over after round {number - 1} of {count}")
            return
        yield number


def progress(what: str) -> None:
    print(f"[{time.monotonic() - _started:5.0f} s] {what}", file=sys.stderr, flush=True)


def _ratio(ours: float, peer: float) -> str:
    ratio = ours / peer if peer else 0
    return f"{ratio:.2f}" if ratio > 0.5 else f"{ratio:.2f} ({1 / ratio:.1f} x cheaper)" if ratio else "-"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _mark(met: bool) -> str:
    return "✓" if met else "✗"
