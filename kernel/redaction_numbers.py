"""Where a text holds numbers of cards, accounts and phones: by their shapes, check digits and neighbours.

Each start is looked at once, within a window of bounded length, and a number that was found is stepped over: the work
is linear in the text whatever it holds. RE2 can't do this: it has no lookahead, so starts within another's window
would be searched for again and again.
"""

import re
from collections.abc import Iterator
from functools import cache

from stdnum import numdb

Spans = Iterator[tuple[int, int]]

_DIGITS = b"0123456789"
_NO_DIGITS = bytes(byte for byte in range(256) if byte not in _DIGITS)

#: How cards group their digits, if they don't come in one piece.
_CARD = re.compile(
    rb"(?<![0-9])(?<![0-9]\.)(?=[2-6])(?="
    rb"([0-9]{13,19}|[0-9]{6}S[0-9]{13}|[0-9]{4}S[0-9]{6}S[0-9]{4,5}|(?:[0-9]{4}S){3}[0-9]{4}(?:S[0-9]{3}(?![0-9]))?)"
    rb"(?![0-9]))".replace(b"S", rb"(?:[ .-]|\xc2\xa0)")
)
#: Digits and separators of 4-4-4-4, of which a fifth group may be no part.
_FOUR_GROUPS = re.compile(rb"[0-9]{4}(?:[^0-9]{1,2}[0-9]{4}){3}")
#: What two times a digit counts in the check digit of cards.
_TWICE = bytes.maketrans(_DIGITS, b"0246813579")

_ACCOUNT = re.compile(rb"(?:\b|_|\\[nrtbf]|\\u[0-9a-fA-F]{4}|%[0-9A-Fa-f]{2})(?=([A-Za-z]{2}[0-9]{2}))")
#: Letters count 10 to 35 in the check digits of accounts.
_VALUES = {byte: str(int(chr(byte), 36)) for byte in b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"}
#: Of how many of which characters a country's accounts are made, as in "4!a6!n".
_PART = re.compile(r"([0-9]+)!?([nac])")
_CLASSES = {"n": b"[0-9]", "a": b"[A-Za-z]", "c": b"[A-Za-z0-9]"}

#: Where a number may begin: at a word's begin, after an escape as in "\\n", as a part only with a sign that parts lack.
_START = rb"(?:(?<![0-9A-Za-z_.#-])|(?<=\\[nrtbf])|(?<=[.#-])(?=[+(]))"
#: No less of what has its shape is looked at if that doesn't stand by itself.
_END = rb"(?![0-9A-Za-z_]|[./-][0-9A-Za-z_])"
_PHONES = tuple(
    re.compile(_START + rb"(?>" + shape + rb")" + _END)
    for shape in (
        rb"\+[1-9](?:[ ()/.-]{0,3}[0-9]){7,14}",
        rb"00[1-9][0-9]{0,2}[ /-](?:[ ()/.-]{0,3}[0-9]){6,12}",
        rb"(?:1[ .-])?(?:\([2-9][0-9]{2}\)[ -]?|[2-9][0-9]{2}[ .-])[0-9]{3}[ .-][0-9]{4}",
        rb"(?:\(0[0-9]{1,4}\)|0[0-9]{1,4})(?:[ /-]{1,3}[0-9]{2,8}){1,4}\b",
    )
)


def cards(raw: bytes) -> Spans:
    """Payment cards: their shape, their first digit, their check digit."""
    done = 0
    for match in _CARD.finditer(raw):
        start, end = match.span(1)
        if start < done:
            continue
        if not _is_card(raw[start:end]):
            shorter = _FOUR_GROUPS.match(raw, start, end)
            if shorter is None or shorter.end() == end or not _is_card(shorter[0]):
                continue
            end = shorter.end()
        yield start, end
        done = end


def _is_card(text: bytes) -> bool:
    digits = text.translate(None, _NO_DIGITS)
    total = sum(digits[-1::-2]) + sum(digits[-2::-2].translate(_TWICE)) - 48 * len(digits)
    return total % 10 == 0 and digits != digits[:1] * len(digits)


def accounts(raw: bytes) -> Spans:
    """IBANs: as many characters as the country's accounts have, standing by themselves, with fitting check digits."""
    done = 0
    for match in _ACCOUNT.finditer(raw):
        start = match.start(1)
        rest = _rest_of_account(match[1][:2].upper()) if start >= done else None
        found = rest.match(raw, start) if rest is not None else None
        if found is not None and _is_account(found[0]):
            yield found.span()
            done = found.end()


def _is_account(text: bytes) -> bool:
    compact = text.translate(None, b" -").upper()
    return int("".join(map(_VALUES.__getitem__, compact[4:] + compact[:4]))) % 97 == 1


@cache
def _rest_of_account(country: bytes) -> re.Pattern[bytes] | None:
    """What accounts of this country look like; None for what is no country."""
    _, properties = numdb.get("iban").info(country.decode())[0]
    parts = [(int(length), _CLASSES[kind]) for length, kind in _PART.findall(properties.get("bban", ""))]
    rest = b"".join(b"(?:[ -]?%s){%d}" % (characters, length) for length, characters in parts)
    return re.compile(b"[A-Za-z]{2}[0-9]{2}%s(?![A-Za-z0-9_])" % rest) if parts else None


def phones(raw: bytes) -> Spans:
    """Phone numbers that stand by themselves, neither part of an identifier nor a date; in the order of the text."""
    found: list[tuple[int, int]] = []
    for pattern in _PHONES:
        at = 0
        while (match := pattern.search(raw, at)) is not None:
            start, at = match.span()
            if _is_phone(raw, start, at):
                found.append((start, at))
            else:
                at = start + 1
    done = 0
    for start, end in sorted(found):
        if end > done:  # two kinds may see the same digits
            yield max(start, done), end
            done = end


def _is_phone(raw: bytes, start: int, end: int) -> bool:
    if start > 1 and raw[start - 1] == 0x3A and raw[start - 2] in _DIGITS:
        return False  # minutes, or seconds
    text = raw[start:end]
    least = 9 if text[0] in b"0(" else 8
    return least <= len(text.translate(None, _NO_DIGITS)) <= 15 and not _date(text)


def _date(text: bytes) -> bool:
    parts = text.replace(b"/", b" ").replace(b"-", b" ").replace(b".", b" ").split()
    days = len(parts) >= 3 and len(parts[0]) <= 2 and len(parts[1]) <= 2
    return days and len(parts[2]) == 4 and parts[2][:2] in (b"19", b"20")
