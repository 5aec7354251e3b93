"""Regular expressions out of the database: RE2, whose time grows with the text and not with the pattern's tricks."""

from typing import Any

import re2  # type: ignore[import-untyped]  # it has no stubs

#: Of a pattern, in characters; and of its compiled form, in bytes.
MAX_PATTERN = 1_000
_MEMORY = 1 << 20


def compile_pattern(pattern: Any) -> Any:
    """A compiled pattern with `search`. Raises ValueError."""
    if not isinstance(pattern, str) or not 0 < len(pattern) <= MAX_PATTERN:
        raise ValueError(f"a pattern is a text of 1 to {MAX_PATTERN} characters")
    options = re2.Options()
    options.max_mem = _MEMORY
    options.log_errors = False
    try:
        return re2.compile(pattern, options=options)
    except (re2.error, UnicodeError) as error:
        raise ValueError("the pattern is none that RE2 knows (it has no look-around and no back-references)") from error
