"""What was measured, against what it is held, and the table of it."""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median

_started = time.monotonic()


@dataclass(frozen=True)
class Aim:
    """At most `limit`, as a value or as a multiple of the peer's. `cheaper`: at most one `limit`-th of the peer's;
    `at_least`: no less than `limit`, for what is better the more it is.
    """

    limit: float
    cheaper: bool = False
    at_least: bool = False

    def text(self, value: float, peer: float | None, unit: str) -> str:
        sign = "≥" if self.at_least else "≤"
        if peer is None:
            return f"{sign} {self.limit:g} {unit}".rstrip() + f" {_mark(self._met(value, self.limit))}"
        if self.cheaper:
            return f"≥ {self.limit:g} x cheaper {_mark(value * self.limit <= peer)}"
        return f"{sign} {self.limit:g} x {_mark(self._met(value, self.limit * peer))}"

    def _met(self, value: float, limit: float) -> bool:
        return value >= limit if self.at_least else value <= limit


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
    #: Whether the highest round is the best one.
    more_is_better: bool = False

    def add(self, server: str, value: float) -> None:
        self.values.setdefault(server, []).append(value)

    def lines(self) -> Iterator[str]:
        (first, rounds), *_ = self.values.items()
        ours = self._best(rounds)
        for name, rounds in self.values.items():
            own, best = name == first, self._best(rounds)
            ratio = "" if own else _ratio(ours, best, cheaper=not self.more_is_better)
            aim = self.aims.get(name)
            asked = aim.text(ours, None if own else best, self.unit) if aim else ""
            title = self.what if own else ""
            shown = f"{_number(best)} {self.unit}".rstrip()
            yield f"| {title} | {name} | {shown} | {_number(median(rounds))} | {ratio} | {asked} |"

    def _best(self, rounds: list[float]) -> float:
        return max(rounds) if self.more_is_better else min(rounds)


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


def _ratio(ours: float, peer: float, *, cheaper: bool) -> str:
    ratio = ours / peer if peer else 0
    if not ratio:
        return "-"
    return f"{ratio:.2f} ({1 / ratio:.1f} x cheaper)" if cheaper and ratio <= 0.5 else f"{ratio:.2f}"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.{2 if value >= 1 else 4}f}"


def _mark(met: bool) -> str:
    return "✓" if met else "✗"
