"""Who may open a socket, from where, and at which session: each refusal says why and closes with a typed code."""

from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from django.conf import settings
from django.contrib.auth import SESSION_KEY
from django.contrib.sessions.backends.db import SessionStore
from django.core import signing
from websockets.exceptions import InvalidStatus

from accounts import tokens
from chat.protocol import ERROR_CODES, Close
from kernel import database
from tests.conftest import Person
from tests.support.raw import Raw
from tests.support.server import Server


def key_in(cookie: tuple[str, str]) -> str:
    return cookie[1].partition("=")[2]


async def refused(raw: Raw, token: str | None, code: str, close: Close) -> None:
    answer = await raw.hello(token)
    assert answer["type"] == "error", answer
    assert answer["code"] == code, answer
    assert code in ERROR_CODES
    assert await raw.closed() == close


# Sessions ------------------------------------------------------------------------------------------------------------


async def test_a_foreign_and_a_missing_session_are_the_same_answer(
    server: Server, person: Person, other: Person
) -> None:
    answers = []
    for session_id in (person.new_session(server), uuid4()):
        async with Raw(server.socket_url(session_id)) as raw:
            answers.append(await raw.hello(other.token))
            assert await raw.closed() == Close.FORBIDDEN
    assert answers[0] == answers[1]
    assert answers[0]["code"] == "not_found"


@pytest.mark.parametrize(
    "wrong", ["not-a-uuid", "1", "%00", "..", "%ff", "x" * 65, "0b47e747-62c3-4071-ac2a-4d3434abf559%0a", "null"]
)
async def test_a_malformed_session_id_is_not_found(server: Server, person: Person, wrong: str) -> None:
    async with Raw(server.socket_url(wrong)) as raw:
        await refused(raw, person.token, "not_found", Close.FORBIDDEN)


@pytest.mark.parametrize("path", ["/", "/ws/", "/ws/chat/", "/ws/other/1/", "/api/v1/sessions", "/ws/chat/a/b/c/"])
async def test_an_unknown_path_is_not_found(server: Server, person: Person, path: str) -> None:
    async with Raw(server.url.replace("http", "ws") + path) as raw:
        await refused(raw, person.token, "not_found", Close.FORBIDDEN)


# Credentials ---------------------------------------------------------------------------------------------------------


async def test_without_cookie_or_token_one_must_sign_in(server: Server, person: Person) -> None:
    async with Raw(server.socket_url(person.new_session(server))) as raw:
        await refused(raw, None, "sign_in_required", Close.SIGN_IN)


def broken_tokens(person: Person) -> dict[str, str]:
    salt = "django-chain.token.v1"
    claims = {"u": str(person.user.pk), "h": person.user.get_session_auth_hash()[-16:]}
    return {
        "empty": "",
        "text": "let me in",
        "unicode": "☃:☃:☃",
        "nul": "\0",
        "lone_surrogate": "\ud800",
        "cut": person.token[:-1],
        "extended": person.token + "a",
        "other_salt": signing.dumps(claims, salt="django-chain.other"),
        "other_key": signing.dumps(claims, key="another secret", salt=salt),
        "old_password": signing.dumps(claims | {"h": "0" * 16}, salt=salt),
        "no_such_user": signing.dumps(claims | {"u": "999999999"}, salt=salt),
        "unsigned": person.token.split(":")[0],
        "long": "a" * 50_000,
    }


async def test_a_token_that_is_not_ours_must_sign_in(server: Server, person: Person) -> None:
    session_id = person.new_session(server)
    for token in broken_tokens(person).values():
        async with Raw(server.socket_url(session_id)) as raw:
            await refused(raw, token, "sign_in_required", Close.SIGN_IN)


async def test_no_log_line_holds_a_token(server: Server, person: Person) -> None:
    async with Raw(server.socket_url(person.new_session(server))) as raw:
        await raw.hello(person.token)
        await raw.ask({"type": "ping", "token": person.token})
    async with Raw(server.socket_url(uuid4())) as raw:
        await raw.hello(person.token + "x")
    log = server.log_text()
    assert person.token not in log
    assert person.token.rpartition(":")[2] not in log


async def test_a_changed_password_ends_the_token(server: Server, person: Person) -> None:
    session_id = person.new_session(server)
    person.user.set_password("another horse")
    await database.run(person.user.save)
    async with Raw(server.socket_url(session_id)) as raw:
        await refused(raw, person.token, "sign_in_required", Close.SIGN_IN)
    async with Raw(server.socket_url(session_id)) as raw:
        assert (await raw.hello(tokens.mint(person.user)))["type"] == "welcome"


async def test_a_deactivated_person_is_out_with_token_and_cookie(
    server: Server, person: Person, cookie: tuple[str, str]
) -> None:
    session_id = person.new_session(server)
    person.user.is_active = False
    await database.run(person.user.save)
    async with Raw(server.socket_url(session_id)) as raw:
        await refused(raw, person.token, "sign_in_required", Close.SIGN_IN)
    async with Raw(server.socket_url(session_id), headers=[cookie]) as raw:
        await refused(raw, None, "sign_in_required", Close.SIGN_IN)


async def test_a_removed_member_cannot_open_an_old_session(server: Server, person: Person) -> None:
    session_id = person.new_session(server)
    await database.run(person.user.memberships.all().delete)
    async with Raw(server.socket_url(session_id)) as raw:
        await refused(raw, person.token, "not_found", Close.FORBIDDEN)


async def test_a_signed_out_cookie_opens_nothing(server: Server, person: Person, cookie: tuple[str, str]) -> None:
    session_id = person.new_session(server)
    async with Raw(server.socket_url(session_id), headers=[cookie]) as raw:
        assert (await raw.hello())["type"] == "welcome"
    await database.run(SessionStore(key_in(cookie)).flush)
    async with Raw(server.socket_url(session_id), headers=[cookie]) as raw:
        await refused(raw, None, "sign_in_required", Close.SIGN_IN)


@pytest.mark.parametrize(
    "value", ["", "a", "x" * 4000, '"\\000aaaaaaaaaaaaaaaa"', '"\\377\\376aaaaaaaaaaa"', "%00", "é"]
)
async def test_a_cookie_that_is_no_session_must_sign_in(server: Server, person: Person, value: str) -> None:
    cookie = ("Cookie", f"{settings.SESSION_COOKIE_NAME}={value}")
    async with Raw(server.socket_url(person.new_session(server)), headers=[cookie]) as raw:
        await refused(raw, None, "sign_in_required", Close.SIGN_IN)


async def test_a_token_wins_over_a_cookie(server: Server, other: Person, cookie: tuple[str, str]) -> None:
    async with Raw(server.socket_url(other.new_session(server)), headers=[cookie]) as raw:
        assert (await raw.hello(other.token))["you"]["id"] == str(other.user.pk)


async def test_an_anonymous_sign_in_session_is_nobody(server: Server, person: Person, cookie: tuple[str, str]) -> None:
    def forget_who() -> None:
        session = SessionStore(key_in(cookie))
        del session[SESSION_KEY]
        session.save()

    await database.run(forget_who)
    async with Raw(server.socket_url(person.new_session(server)), headers=[cookie]) as raw:
        await refused(raw, None, "sign_in_required", Close.SIGN_IN)


# Origins -------------------------------------------------------------------------------------------------------------


def foreign_origins(server: Server) -> list[str]:
    """Near misses of the server's own origin."""
    own, port = server.url, urlsplit(server.url).port
    return [
        "null",
        "",
        "https://evil.example",
        "http://127.0.0.1",
        f"http://127.0.0.1:{(port or 0) + 1}",
        f"https://127.0.0.1:{port}",
        f"ws://127.0.0.1:{port}",
        f"http://localhost:{port}",
        f"http://127.0.0.1.evil.example:{port}",
        f"http://evil.example:{port}",
        f"http://127.0.0.1.:{port}",
        f"{own}.evil.example",
        f"{own}@evil.example",
        f"http://evil.example/{own}",
        f"{own}/",
        f"{own} ",
        f"{own}, https://evil.example",
        own.upper(),
        own.replace("127.0.0.1", "127.1"),
        own.removeprefix("http:"),
        "file://",
        "chrome-extension://aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    ]


async def turned_away(raw: Raw) -> None:
    try:
        await raw.__aenter__()
    except InvalidStatus as refusal:  # by the server itself, whose parser takes it for no origin at all
        if refusal.response.status_code != 400:
            raise
        return
    answer = await raw.hello()
    assert answer.get("code") == "origin_not_allowed", (raw.headers, answer)
    assert await raw.closed() == Close.FORBIDDEN


async def test_a_foreign_page_may_not_use_the_visitors_cookie(
    server: Server, person: Person, cookie: tuple[str, str]
) -> None:
    session_id = person.new_session(server)
    for origin in foreign_origins(server):
        if origin.strip() == server.url:
            continue  # surrounding space is no part of a header's value
        await turned_away(Raw(server.socket_url(session_id), headers=[cookie, ("Origin", origin)]))


async def test_the_servers_own_page_may_use_the_cookie(server: Server, person: Person, cookie: tuple[str, str]) -> None:
    session_id = person.new_session(server)
    for origin in (server.url, None):
        async with Raw(server.socket_url(session_id), headers=[cookie], origin=origin) as raw:
            assert (await raw.hello())["type"] == "welcome"


async def test_two_origins_are_none(server: Server, person: Person, cookie: tuple[str, str]) -> None:
    session_id = person.new_session(server)
    for pair in ([server.url, "https://evil.example"], ["https://evil.example", server.url]):
        headers = [cookie, *(("Origin", origin) for origin in pair)]
        await turned_away(Raw(server.socket_url(session_id), headers=headers))


async def test_a_token_serves_from_any_origin(server: Server, person: Person) -> None:
    session_id = person.new_session(server)
    for origin in ("https://widget.example", "null"):
        async with Raw(server.socket_url(session_id), origin=origin) as raw:
            assert (await raw.hello(person.token))["type"] == "welcome"


async def test_a_bad_token_from_a_foreign_page_doesnt_fall_back_to_the_cookie(
    server: Server, person: Person, cookie: tuple[str, str]
) -> None:
    session_id = person.new_session(server)
    for token in ("", "bad"):
        for origin in ("https://evil.example", server.url):
            async with Raw(server.socket_url(session_id), headers=[cookie], origin=origin) as raw:
                await refused(raw, token, "sign_in_required", Close.SIGN_IN)
