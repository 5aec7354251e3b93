"""What a pattern of kernel.redaction can't say: check digits, shapes, neighbours. Each says which bytes to take out."""

import binascii
from base64 import b64decode
from collections.abc import Callable
from functools import cache
from typing import Any

from stdnum import iban as ibans
from stdnum import luhn, numdb

Span = tuple[int, int] | None

_DIGITS = frozenset(b"0123456789")
_DIGIT = frozenset(bytes([byte]) for byte in _DIGITS)
_WORD = frozenset(b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")
#: How cards group their digits; else they are in one piece.
_CARD_SHAPES: dict[int, tuple[tuple[int, ...], ...]] = {
    4: ((4, 4, 4, 4, 3), (4, 4, 4, 4), (4, 6, 5), (4, 6, 4)),
    6: ((6, 13),),
}
_NO_SECRETS = frozenset({b"true", b"false", b"null", b"none", b"undefined", b"required", b"optional"})


def common(raw: bytes, match: Any) -> Span:
    """The last group that took part, else the whole; without the letter of an escape before it."""
    start, end = match.span(match.lastindex or 0)
    if start and raw[start - 1] == 0x5C and raw[start] in b"nrtbf":
        start += 1
    return start, end


def bearer(raw: bytes, match: Any) -> Span:
    """A token, rather than the word after "bearer" or "basic" in prose."""
    token = match.group(1)
    if b"basic" in raw[match.start() : match.start(1)].lower():
        try:
            return match.span(1) if b":" in b64decode(token + b"=" * (-len(token) % 4)) else None
        except (binascii.Error, ValueError):
            return None
    return match.span(1) if _odd(token) else None


def quoted_secret(raw: bytes, match: Any) -> Span:
    value = match.group(match.lastindex)
    return None if len(value) < 3 or _no_secret(value) else match.span(match.lastindex)


def unquoted_secret(least: int) -> Callable[[bytes, Any], Span]:
    """A value without quotes, of `least` bytes; after a colon and a space it must not look like a word of prose."""

    def check(raw: bytes, match: Any) -> Span:
        span: tuple[int, int] = match.span(match.lastindex)
        value = match.group(match.lastindex)
        if len(value) < least or _no_secret(value):
            return None
        if raw[match.start() : span[0]].rstrip(b" \t").endswith(b":") and raw[span[0] - 1] in b" \t":
            value = value.rstrip(b".!?:")
            return span if _odd(value) else None
        if value.isdigit() and match.lastindex > 1 and not match.group(1).lower().startswith((b"pass", b"pwd")):
            return None
        return span

    return check


def _no_secret(value: bytes) -> bool:
    return value.lower() in _NO_SECRETS or value.startswith((b"[redacted", b"${", b"{{", b"%(", b"<"))


def _odd(value: bytes) -> bool:
    """No word of a language: a digit or a sign in it, or a capital after a small letter."""
    plain = value.replace(b"-", b"").replace(b"'", b"")
    return not plain.isalpha() or (not plain.islower() and not plain.isupper() and not plain.istitle())


def card(raw: bytes, match: Any) -> Span:
    """The first part of a run of digits that is a card number: its shape, its first digits, its check digit."""
    groups = _groups(match.group(0), match.start())
    sizes = tuple(end - start for start, end in groups)
    for first, size in enumerate(sizes):
        shapes = ((size,),) if 13 <= size <= 19 else _CARD_SHAPES.get(size, ())
        for shape in shapes:
            last = first + len(shape) - 1
            if sizes[first : last + 1] == shape and _stands(raw, groups[first][0], groups[last][1]):
                return groups[first][0], groups[last][1]
    return None


def _stands(raw: bytes, start: int, end: int) -> bool:
    if raw[start - 1 : start] in _DIGIT or raw[end : end + 1] in _DIGIT or _fraction(raw, start):
        return False
    return _is_card(bytes(byte for byte in raw[start:end] if byte in _DIGITS).decode())


def _groups(run: bytes, offset: int) -> list[tuple[int, int]]:
    groups, start = [], None
    for index, byte in enumerate(run):
        if byte in _DIGITS:
            start = index if start is None else start
        elif start is not None:
            groups.append((offset + start, offset + index))
            start = None
    if start is not None:
        groups.append((offset + start, offset + len(run)))
    return groups


def _is_card(digits: str) -> bool:
    return 13 <= len(digits) <= 19 and digits[0] in "23456" and len(set(digits)) > 1 and bool(luhn.is_valid(digits))


def _fraction(raw: bytes, start: int) -> bool:
    return start > 1 and raw[start - 1] == 0x2E and raw[start - 2] in _DIGITS


def iban(raw: bytes, match: Any) -> Span:
    """As many characters as the country's accounts have, if they stand by themselves and their check digits fit."""
    start, most = match.span(1)
    wanted = _iban_length(raw[start : start + 2].decode().upper())
    end, compact = start, bytearray()
    while end < most and len(compact) < wanted:
        if raw[end] in _WORD:
            compact.append(raw[end])
        end += 1
    if len(compact) != wanted or not wanted or (end < len(raw) and raw[end] in _WORD):
        return None
    return (start, end) if ibans.is_valid(compact.decode()) else None


@cache
def _iban_length(country: str) -> int:
    """Characters of an account number of this country; 0 for what is no country."""
    _, properties = numdb.get("iban").info(country)[0]
    parts = properties.get("bban", "").replace("!", " ").split()
    return 4 + sum(int(part.lstrip("nac")) for part in parts if part.lstrip("nac")) if parts else 0


def phone(raw: bytes, match: Any) -> Span:
    """A number that stands by itself, neither part of an identifier nor a date."""
    start, end = match.span(match.lastindex or 0)
    digits = bytes(byte for byte in raw[start:end] if byte in _DIGITS)
    if match.lastindex:
        return start, end
    if not 8 <= len(digits) <= 15 or (raw[start : start + 1] in b"0(" and len(digits) < 9):
        return None
    before, after = raw[max(start - 2, 0) : start], raw[end : end + 2]
    escaped = len(before) == 2 and before[0] == 0x5C and before[1] in b"nrtbf"
    if before and not escaped and (before[-1] in _WORD or before[-1] in b"-.#" or _time(before)):
        return None
    if after and (after[0] in _WORD or (after[0] in b"-./" and after[1:] and after[1] in _WORD)):
        return None
    return None if _date(raw[start:end]) else (start, end)


def _time(before: bytes) -> bool:
    return len(before) == 2 and before[0] in _DIGITS and before[1] == 0x3A


def _date(text: bytes) -> bool:
    parts = text.replace(b"/", b" ").replace(b"-", b" ").replace(b".", b" ").split()
    days = len(parts) >= 3 and len(parts[0]) <= 2 and len(parts[1]) <= 2
    return days and len(parts[2]) == 4 and parts[2][:2] in (b"19", b"20")
