"""Regular expressions out of the database: RE2, whose time grows with the text and not with the pattern's tricks.

Linear is not cheap: a pattern of fifty characters can take half a minute for a million. So a search has a bound, a
definition a number of patterns, and who searches a long text does it in a thread, which RE2 does not hold up.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import re2  # type: ignore[import-untyped]  # it has no stubs

from kernel.errors import TooLarge

#: Of a pattern, in characters; and of its compiled form, in bytes.
MAX_PATTERN = 1_000
_MEMORY = 1 << 20
#: Patterns of one definition, those of its JSON schemas included: some take 5 ms to compile, and a megabyte.
MAX_PATTERNS = 100
#: What one search may take: instructions of the compiled pattern times characters. A few seconds of a slow core.
MAX_WORK = 100_000_000

_left: ContextVar[list[int] | None] = ContextVar("patterns_left", default=None)


def compile_pattern(pattern: Any) -> Any:
    """A compiled pattern for `search`. Raises ValueError."""
    if not isinstance(pattern, str) or not 0 < len(pattern) <= MAX_PATTERN:
        raise ValueError(f"a pattern is a text of 1 to {MAX_PATTERN} characters")
    count(1)
    options = re2.Options()
    options.max_mem = _MEMORY
    options.log_errors = False
    try:
        return re2.compile(pattern, options=options)
    except (re2.error, UnicodeError) as error:
        # The definition is refused: that the faults of all its other patterns are found, too, helps nobody.
        if (left := _left.get()) is not None:
            left[0] = 0
        raise ValueError("the pattern is none that RE2 knows (it has no look-around and no back-references)") from error


def search(pattern: Any, text: str) -> Any:
    """What a compiled pattern finds first, or None. Raises TooLarge for a text that is too long for this pattern."""
    if pattern.programsize * len(text) > MAX_WORK:
        raise TooLarge(f"A text of {len(text)} characters is too long for a pattern as large as that of this step.")
    return pattern.search(text)


@contextmanager
def bounded() -> Iterator[None]:
    """Within it, MAX_PATTERNS patterns can be compiled; for what reads one definition."""
    before = _left.set([MAX_PATTERNS])
    try:
        yield
    finally:
        _left.reset(before)


def count(patterns: int) -> None:
    """Take so many from what `bounded` leaves. Raises ValueError when it is used up."""
    left = _left.get()
    if left is not None:
        left[0] -= patterns
        if left[0] < 0:
            raise ValueError(f"a workflow may have {MAX_PATTERNS} patterns, those of its schemas included")
