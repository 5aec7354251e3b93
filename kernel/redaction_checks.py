"""What a pattern of kernel.redaction can't say of a secret: whether it looks like one.

Each says which bytes to take out.

`begun` is where the pattern's match begins, `start` and `end` are those of the value in it.
"""

import binascii
from base64 import b64decode
from collections.abc import Callable

Span = tuple[int, int] | None

_NO_SECRETS = frozenset({b"true", b"false", b"null", b"none", b"undefined", b"required", b"optional"})


def common(raw: bytes, begun: int, start: int, end: int) -> Span:
    """The value, without the letter of an escape before it."""
    if start and raw[start - 1] == 0x5C and raw[start] in b"nrtbf":
        start += 1
    return start, end


def bearer(raw: bytes, begun: int, start: int, end: int) -> Span:
    """A token, rather than the word after "bearer" or "basic" in prose."""
    token = raw[start:end]
    if b"basic" in raw[begun:start].lower():
        try:
            return (start, end) if b":" in b64decode(token + b"=" * (-len(token) % 4)) else None
        except (binascii.Error, ValueError):
            return None
    return (start, end) if _odd(token) else None


def quoted_secret(raw: bytes, begun: int, start: int, end: int) -> Span:
    """A value that begins with its quote, which stays."""
    start += 2 if raw[start] == 0x5C else 1
    return None if end - start < 3 or _no_secret(raw[start:end]) else (start, end)


def unquoted_secret(least: int) -> Callable[[bytes, int, int, int], Span]:
    """A value without quotes, of `least` bytes; after a colon and a space it must not look like a word of prose."""

    def check(raw: bytes, begun: int, start: int, end: int) -> Span:
        value = raw[start:end]
        if len(value) < least or _no_secret(value):
            return None
        name = raw[begun:start]
        if name[-1:] in b" \t" and name.rstrip(b" \t").endswith(b":"):
            value = value.rstrip(b".!?:")
            return (start, end) if _odd(value) else None
        if value.isdigit() and not name.lower().startswith((b"pass", b"pwd")):
            return None
        return start, end

    return check


def _no_secret(value: bytes) -> bool:
    return value.lower() in _NO_SECRETS or value.startswith((b"[redacted", b"${", b"{{", b"%(", b"<"))


def _odd(value: bytes) -> bool:
    """No word of a language: a digit or a sign in it, or a capital after a small letter."""
    plain = value.replace(b"-", b"").replace(b"'", b"")
    return not plain.isalpha() or (not plain.islower() and not plain.isupper() and not plain.istitle())
