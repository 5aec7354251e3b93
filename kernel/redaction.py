"""Takes secrets and personal data out of text on its way to a log, a row of the interaction log or an error.

    redact("mail bob@example.org")  →  "mail [redacted:email]"

No text takes long: patterns run on RE2, which is linear in the text whatever the text is, what a pattern can't say a
small function decides, and no part of the text is looked at more than a few times (kernel.redaction_numbers for the
numbers). One search with all patterns at once passes over ordinary text.
"""

# ruff: noqa: E501, S105  patterns read best in one piece, and their names are no passwords

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import re2  # type: ignore[import-untyped]  # google-re2 ships none

from kernel.errors import Misconfigured
from kernel.redaction_checks import bearer, common, quoted_secret, unquoted_secret
from kernel.redaction_numbers import accounts, cards, phones

#: `redact_data` looks no deeper: no plain data of ours is, and a row must be writable.
_MAX_DEPTH = 100
#: Which bytes of a match to take out, None: nothing; it gets where the match begins, and the value's begin and end.
Check = Callable[[bytes, int, int, int], tuple[int, int] | None]
Spans = Iterator[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class _Rule:
    kind: str
    #: A text without a match of it has nothing to take out.
    pattern: str
    check: Check = common
    #: Says by itself, without pattern and check, what to take out of a text.
    find: Callable[[bytes], Spans] | None = None


# A word border, or the end of an escape in JSON ("\n"), in a string literal or in a URL ("%20").
_EDGE = r"(?:\b|_|\\[nrtbf]|\\u[0-9a-fA-F]{4}|%[0-9A-Fa-f]{2})"
_SECRET_NAME = (
    r"(?:passw(?:or)?d[0-9]?|passphrase|pwd|secret|token|credentials?|session_?id|signature"
    r"|(?:api|access|account|secret|private|auth|signing|encryption|master)[_-]?key)"
)
#: As many as the shortest phone number has, or a card's with spaces that aren't ASCII.
_DIGITS = r"(?:\d(?:[ ()/.-]{0,3}\d){7}|\d{4}\xc2\xa0\d)"
_SIGN = r"""(?:["'\\]{0,3}[ \t]{0,3}(?::|=>?|%3[AaDd])[ \t]{0,3})"""

_RULES = (
    _Rule("private_key", r"-----BEGIN [A-Z ]*PRIVATE KEY[A-Z ]*-----(?s:.*?)(?:-----END [A-Z ]*PRIVATE KEY[A-Z ]*-----|\z)"),
    _Rule("jwt", r"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?"),
    _Rule("api_key", r"(?:AKIA|ASIA)[0-9A-Z]{16}(?:[\s:,;|/\"'\\]{1,4}[A-Za-z0-9/+]{40}\b)?"),
    _Rule("api_key", r"(?:AIza[0-9A-Za-z_-]{35}|ya29\.[0-9A-Za-z_-]{20,}|GOCSPX-[0-9A-Za-z_-]{20,})"),
    _Rule("api_key", r"(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{22,}|gl(?:pat|ptt|dt|rt|ft|cbt|soat)-[A-Za-z0-9_-]{16,})"),
    _Rule("api_key", r"(?:xox[abeoprs](?:\.xox[a-z])?-[A-Za-z0-9-]{10,}|xapp-[A-Za-z0-9-]{10,}|hooks\.slack\.com/services/[A-Za-z0-9/]{20,})"),
    _Rule("api_key", r"(?:[rs]k_(?:live|test)_[0-9A-Za-z]{10,}|whsec_[0-9A-Za-z+/=]{16,}|SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,})"),
    _Rule("api_key", _EDGE + r"((?:AC|SK)[0-9a-f]{32}\b)"),
    _Rule("api_key", r"(?:hf_[A-Za-z0-9]{30,}|npm_[A-Za-z0-9]{36}|pypi-AgEI[A-Za-z0-9_-]{20,}|do[opr]_v1_[0-9a-f]{40,}|(?:gsk|pcsk)_[A-Za-z0-9_]{30,}|xai-[A-Za-z0-9]{40,})"),
    _Rule("api_key", _EDGE + r"(sk-(?:(?:ant|proj|or|svcacct|admin|test|live|lf)-[A-Za-z0-9_-]{8,}|[A-Za-z0-9_-]*[0-9][A-Za-z0-9_-]*))", unquoted_secret(16)),
    _Rule("password", r"""[a-zA-Z][a-zA-Z0-9+.-]*:(?:\\?/){2}[^\s/@:"'<>\\]*:([^\s/"'<>\\]+)@"""),
    _Rule("authorization", r"""(?i)authorization(?:["'\\]{0,3}\s{0,3}[:=,]\s{0,3}["'\\b]{0,3})(?:[a-z]+\s+)?([^\s"',;\\]{6,})"""),
    _Rule("authorization", r"(?i)" + _EDGE + r"(?:bearer|basic)(?:\s|%20)+([A-Za-z0-9._~+/-]{8,}=*)", bearer),
    _Rule("secret", f"(?i){_SECRET_NAME}{_SIGN}" + r"""(\\"[^"\\]+|"(?:[^"\\]|\\.)+|'(?:[^'\\]|\\.)+)""", quoted_secret),
    _Rule("secret", f"(?i){_SECRET_NAME}{_SIGN}" + r"""([^\s"'\\,;&<>{}()\[\]]{4,})""", unquoted_secret(4)),
    _Rule("card", _DIGITS, find=cards),
    _Rule("iban", _EDGE + r"[A-Za-z]{2}\d{2}(?:[ -]?[A-Za-z0-9]){11}", find=accounts),
    _Rule("email", r"[A-Za-z0-9_\x80-\xff](?:[A-Za-z0-9._%+'\x80-\xff-]*[A-Za-z0-9_+\x80-\xff-])?(?:@|%40)[A-Za-z0-9\x80-\xff](?:[A-Za-z0-9\x80-\xff-]*\.)+[A-Za-z\x80-\xff]{2,}"),
    _Rule("phone", _DIGITS, find=phones),
    _Rule("phone", r"""(?i)\b(?:tele(?:ph|f)one?|tel|phone|mobile?|cell|fax|sms|whatsapp)[a-z_]{0,8}["'\\]{0,2}[.:= ]{1,3}["'\\]{0,2}(\d{7,15}\b)"""),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Compiled:
    any: Any
    rules: tuple[tuple[_Rule, Any], ...]


_registered: dict[str, Any] = {}


def register_redaction(name: str, pattern: Any) -> None:
    """Take out what `pattern` matches too, as `[redacted:name]`: RE2 syntax, as text or compiled by `re2`.

    Raises Misconfigured for a pattern that RE2 doesn't take (Python's `re` may take time without end on it), and for
    one that matches the empty text.
    """
    try:
        compiled = re2.compile(pattern)
        empty = compiled.search("")
    except (re2.error, TypeError, AttributeError) as error:
        raise Misconfigured(f"The redaction {name!r} needs a pattern of RE2 as text (no lookaround).") from error
    if empty:
        raise Misconfigured(f"The redaction {name!r} matches the empty text; make its pattern match something.")
    _registered[name] = compiled


def forget_redaction(name: str) -> None:
    """Undo `register_redaction`, so that a test can leave things as they were."""
    _registered.pop(name, None)


def redact(text: str) -> str:
    """`text` with secrets and personal data replaced by `[redacted:kind]`; the same object if there are none."""
    raw = text.encode("utf-8", "surrogatepass")
    compiled = _compiled()
    if compiled.any.search(raw):
        for rule, pattern in compiled.rules:
            raw = _without(raw, rule, pattern)
        text = raw.decode("utf-8", "surrogatepass")
    for name, own in _registered.items():
        # As bytes: of a text RE2 takes no lone surrogates.
        if own.search(raw):
            raw = own.sub(_named(f"[redacted:{name}]".encode()), raw)
            text = raw.decode("utf-8", "surrogatepass")
    return text


def _named(replacement: bytes) -> Callable[[Any], bytes]:
    return lambda _: replacement


def redact_data(data: Any, *, _depth: int = 0) -> Any:
    """Plain JSON, or what becomes it, redacted: every text, and whatever stands under a name such as "password"."""
    if isinstance(data, str):
        return redact(data)
    if _depth > _MAX_DEPTH:
        return "[redacted:depth]"
    if isinstance(data, dict):
        return {_key(key): _value(key, value, _depth + 1) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [redact_data(one, _depth=_depth + 1) for one in data]
    if isinstance(data, int) and not isinstance(data, bool) and abs(data) > 10**11:
        text = redact(str(data))
        return data if text == str(data) else text
    return data


def _key(key: Any) -> Any:
    return redact(key) if isinstance(key, str) else key


def _value(key: Any, value: Any, depth: int) -> Any:
    named = isinstance(key, str) and isinstance(value, str) and value and _secret_name().search(key)
    return "[redacted:secret]" if named else redact_data(value, _depth=depth)


def _without(raw: bytes, rule: _Rule, pattern: Any) -> bytes:
    if pattern.search(raw) is None:
        return raw
    pieces, done = [], 0
    replacement = b"[redacted:%s]" % rule.kind.encode()
    for start, end in rule.find(raw) if rule.find else _found(raw, pattern, rule.check):
        pieces += [raw[done:start], replacement]
        done = end
    return b"".join([*pieces, raw[done:]])


def _found(raw: bytes, pattern: Any, check: Check) -> Spans:
    value = 1 if pattern.groups else 0
    at: int | None = 0
    while at is not None:
        matches, at = pattern.finditer(raw, at), None
        for match in matches:
            begun, (start, end) = match.start(), match.span(value)
            span = check(raw, begun, start, end)
            if span is not None:
                yield span
            elif start > begun:
                # What is no secret may have one in it, and is looked at again, once: the name before it is passed.
                at = start
                break


@cache
def _compiled() -> _Compiled:
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1  # bytes as they are: text may hold anything
    rules = tuple((rule, re2.compile(rule.pattern.encode("latin-1"), options)) for rule in _RULES)
    options.max_mem = 64 << 20  # all at once need more states than one does
    joined = "|".join(f"(?:{rule.pattern})" for rule in _RULES)
    return _Compiled(re2.compile(joined.encode("latin-1"), options), rules)


@cache
def _secret_name() -> Any:
    return re2.compile(
        rf"(?i)(?:^|[_.-]|\b){_SECRET_NAME}$|(?i)^(?:authorization|cookie)$|[a-z](?:Password|Secret|Token|Key)$"
    )
