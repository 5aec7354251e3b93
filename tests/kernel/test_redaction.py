"""What is taken out of texts, what stays, and that no text takes long."""

import time

import pytest
import re2  # type: ignore[import-untyped]

from kernel.errors import Misconfigured
from kernel.redaction import forget_redaction, redact, redact_data, register_redaction
from tests.support.secrets import SECRETS

SURROUNDINGS = (
    "{}",
    "say {} now",
    '{{"a": "{}"}}',
    '{{\\"a\\": \\"\\n{}\\"}}',
    "https://example.org/?q={}&x=1",
    "({}),",
    "'{}'",
    "<b>{}</b>",
)

ORDINARY = """risk-averse people ask-me; a task-sk-something, the desk-chair
550e8400-e29b-41d4-a716-446655440000 a1b2c3d4-0123-4567-8901-abcdefabcdef 019aaf52-1234-7123-8123-123412341234
2026-11-25T08:13:52+00:00 2026-11-25 08:13:52,123 01/02/2026 1030 25.11.2026 01-02-2026 12:30
$1,299.00 €1.299.000,00 version 1.2.3 v10.20.300 192.168.100.200 order 123456789012 order 4512345678901235
4b825dc642cb6eb9a060e54bf8d69288fbee4904 max_tokens: 4096 tokens=12 input_tokens=99
Password: required. The secret: everything passes. Basic authentication and bearer of news
0.4111111111111111 1764058432000 ISBN 978-3-16-148410-0
action=turn_ended session=019aaf52-1234-7123-8123-123412341234 run=x attempt=1 status=complete latency_ms=1234 tokens=55
meet @bob at 10@home, sk-SK locale, key: value, token count: 5, 100 000 000 people in 1990 2000 2010 2020
"token": 15, {"api_key": null} api_key=None password=${PW}""".splitlines()


def test_forty_planted_secrets_are_gone_whatever_stands_around_them() -> None:
    assert len(SECRETS) >= 40
    left = [
        (kind, around)
        for kind, (planted, secret) in SECRETS.items()
        for around in SURROUNDINGS
        if secret in redact(around.format(planted))
    ]
    assert not left


@pytest.mark.parametrize("line", ORDINARY)
def test_ordinary_text_stays_as_it_is(line: str) -> None:
    assert redact(line) == line


#: Each repeated makes a text of nothing but beginnings, near misses or hits of some pattern.
HOSTILE = (
    *(f"4{separator}" for separator in ("", " ", ".", "-", "/", "\xa0", "\n", ") (")),
    *("02 ", "001 ", "0049 30 1234567-1", "030 1234567 ", "202 555 0143 ", "+1", "x+49 30 1234567 ", "01-02-2026 "),
    *("4444 ", "4111 1111 1111 1112 ", "4111111111111111 ", "3782 822463 10006 ", "411111 1111111111111 "),
    *("GB82", "_GB82", "GB82 WEST 1234 5698 7654 33 ", "DE89370400440532013001 ", "DE89370400440532013000 "),
    *("sk-", " sk-1aaaaaaaaaaa", "AKIA", "xoxb-", "SG.", "eyJ", "eyJ.", "eyJaaaaaaaa.", "hf_a"),
    *('"password":', 'password="', "password='{{token=\"{{", "password: aaaa ", "token=1234 ", '\\"secret\\":\\"'),
    *("a@", "a@b.", "a.", "a@b.cc ", "://a:", "a://a:a", "http://a:b@", "authorization: ", "bearer aaaaaaaaa "),
    *("-----BEGIN PRIVATE KEY-----", "-----BEGIN ", "The quick fox. ", "\u00e9", "\\n", "%20", "a1"),
    *("550e8400-e29b-41d4-a716-446655440000 ", "2026-11-25T08:13:52,123 ", "ab12 "),
)


def cpu(text: str) -> float:
    begun = time.process_time()
    redact(text)
    return time.process_time() - begun


@pytest.mark.parametrize("piece", HOSTILE)
def test_no_text_takes_long(piece: str) -> None:
    text = piece * (200_000 // len(piece))
    fourth = min(cpu(text[:50_000]) for _ in range(2))
    whole = min(cpu(text) for _ in range(2))
    assert whole < 8 * max(fourth, 0.02), "four times the text take much more than four times as long"
    assert whole < 1


def test_data_keeps_its_shape_and_what_a_name_calls_secret_goes() -> None:
    data = {"password": "swordfish", "n": [1, {"to": "bob@example.org"}], "max_tokens": 5, "card": 4111111111111111}
    assert redact_data(data) == {
        "password": "[redacted:secret]",
        "n": [1, {"to": "[redacted:email]"}],
        "max_tokens": 5,
        "card": "[redacted:card]",
    }


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("secret: mytoken = abcd1234", "secret: mytoken = [redacted:secret]"),
        ("password='{{token=\"abcd1234\"'", "password='{{token=\"[redacted:secret]\"'"),
        ("4111 1111 1111 1111 123", "[redacted:card] 123"),
        ("12345678 4111111111111111", "12345678 [redacted:card]"),
        ("+49 4111 1111 1111 1111", "+49 [redacted:card]"),
        ("4111\xa01111\xa01111\xa01111", "[redacted:card]"),
        ("GB82 WEST DE89370400440532013000", "GB82 WEST [redacted:iban]"),
        ("12/02/2026 030 1234567", "12/02/2026 [redacted:phone]"),
        ("body.+49 30 1234567", "body.[redacted:phone]"),
        ("say\\n030 1234567", "say\\n[redacted:phone]"),
    ],
)
def test_what_looks_alike_hides_none(text: str, left: str) -> None:
    assert redact(text) == left


def test_a_text_of_broken_characters_is_redacted_all_the_same() -> None:
    assert redact("\ud83d bob@example.org \x00") == "\ud83d [redacted:email] \x00"


@pytest.mark.parametrize("pattern", [r"EMP-\d{6}", re2.compile(r"EMP-\d{6}")])
def test_a_registered_pattern_is_taken_out_too(pattern: object) -> None:
    register_redaction("employee", pattern)
    try:
        assert redact("ask EMP-123456") == "ask [redacted:employee]"
        assert redact("\ud83d é EMP-123456 of bob@example.org") == "\ud83d é [redacted:employee] of [redacted:email]"
    finally:
        forget_redaction("employee")


@pytest.mark.parametrize("pattern", ["(?=x)", "x*", 5])
def test_a_pattern_that_can_not_work_is_refused(pattern: object) -> None:
    with pytest.raises(Misconfigured, match="employee"):
        register_redaction("employee", pattern)
