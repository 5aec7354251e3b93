"""Following documents: lists that say when nothing has changed, and the states of one as they come."""

import asyncio
import json
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import httpx2 as httpx
import pytest
from django.conf import settings
from django.db.models import F
from django.test import Client as Browser
from django.test import RequestFactory

from accounts import tokens
from accounts.models import Membership
from kernel import database
from tests.conftest import Person
from tests.support.server import Server
from tests.support.stage import eventually, within
from tests.support.stage import settings as options
from tests.vectorstore.rest.conftest import Place
from vectorstore import collections, watching
from vectorstore.models import CollectionMember, Document
from vectorstore.rest import watching as rest
from vectorstore.scope import Scope
from vectorstore.watching import Watch, Watcher, seen

LIST = "/collections/default/documents"


class TestTheList:
    async def test_it_is_sent_again_only_when_something_has_changed(self, place: Place) -> None:
        made = [await place.ingest(f"text {n}", source=f"{n}.md") for n in range(3)]

        def listed(tag: str = "", **params: Any) -> httpx.Response:
            return place.ask("viewer", "GET", LIST, params=params, headers={"If-None-Match": tag} if tag else {})

        first = listed()
        tag = first.headers["etag"]
        assert first.headers["cache-control"] == "private, no-cache"
        for known in (tag, tag.removeprefix("W/"), f'"other", {tag}'):
            same = listed(known)
            assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
        assert listed('"other"').json() == first.json()
        pages = {listed(limit=2).headers["etag"], listed(state="failed").headers["etag"], tag}
        assert len(pages) == 3

        failed = Document.objects.filter(id=made[0])
        steps: list[Callable[[], Any]] = [
            lambda: place.ask("owner", "PATCH", f"/documents/{made[1]}", json={"title": "x"}),
            lambda: place.ask("owner", "DELETE", f"/documents/{made[2]}"),
            lambda: watched(failed, state="failed"),
        ]
        for step in steps:
            await database.run(step)
            changed = listed(tag)
            assert changed.status_code == 200
            assert changed.headers["etag"] != tag
            tag = changed.headers["etag"]
            assert listed(tag).status_code == 304

    async def test_a_tag_opens_nothing(self, place: Place) -> None:
        await place.ingest()
        tag = place.ask("owner", "GET", LIST).headers["etag"]
        id_ = place.get("/collections/default")["id"]
        foreign = place.ask("other", "GET", f"/collections/{id_}/documents", headers={"If-None-Match": tag})
        assert foreign.status_code == 404


def watched(rows: Any, **values: Any) -> None:
    """As workers write: with the time of the change."""
    for row in rows:
        for name, value in values.items():
            setattr(row, name, value)
        row.save()


@pytest.fixture(params=["uvicorn", "daphne"])
def at(request: pytest.FixtureRequest, place: Place, daphne: Server) -> Place:
    """The place at each kind of server."""
    return place if request.param == "uvicorn" else replace(place, server=daphne)


@pytest.fixture(scope="module")
def daphne(live_database: None, server_env: dict[str, str]) -> Iterator[Server]:
    with Server(server_env, kind="daphne") as server:
        yield server


@contextmanager
def stream(
    place: Place, document: str, who: str = "viewer", *, server: Server | None = None, timeout: float = 20
) -> Iterator[Any]:
    headers = {"Authorization": f"Bearer {place.people[who].token}"}
    url = f"{(server or place.server).url}/api/v1/documents/{document}/events"
    with httpx.stream(
        "GET", url, headers=headers, params={"workspace": str(place.workspace)}, timeout=timeout
    ) as response:
        yield response


def events(response: httpx.Response) -> Iterator[tuple[str, Any]]:
    name = ""
    for line in response.iter_lines():
        if line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            yield name, json.loads(line[6:])


async def queued(place: Place) -> str:
    """A document that nobody works on."""
    await place.ingest()
    collection = place.get("/collections/default")["id"]

    def make() -> str:
        row = Document.objects.create(
            workspace_id=place.workspace, collection_id=collection, title="t", source="queued.md"
        )
        return str(row.id)

    return await database.run(make)


class TestTheStream:
    async def test_each_state_is_told_until_it_is_ready(self, at: Place) -> None:
        made = await queued(at)
        rows = Document.objects.filter(id=made)
        with stream(at, made) as response:
            assert response.headers["content-type"] == "text/event-stream"
            told = events(response)
            assert next(told) == (
                "state",
                {"state": "queued", "done": 0, "total": 0, "error_code": "", "reason": ""},
            )
            for done in (1, 2):
                await database.run(lambda done=done: watched(rows, state="embedding", done=done, total=2))
                name, state = next(told)
                assert (name, state["state"], state["done"], state["total"]) == ("state", "embedding", done, 2)
            await database.run(lambda: watched(rows, state="ready"))
            assert [state["state"] for _, state in told] == ["ready"]

    async def test_one_that_has_failed_is_told_with_its_reason_and_ends(self, at: Place) -> None:
        made = await queued(at)
        values = {"state": "failed", "error_code": "encrypted", "reason": "It is protected."}
        await database.run(lambda: watched(Document.objects.filter(id=made), **values))
        with stream(at, made) as response:
            [(name, state)] = list(events(response))
        assert (name, state["error_code"], state["reason"]) == ("state", "encrypted", "It is protected.")

    async def test_one_that_is_deleted_is_gone(self, at: Place) -> None:
        made = await queued(at)
        with stream(at, made) as response:
            told = events(response)
            next(told)
            assert at.ask("owner", "DELETE", f"/documents/{made}").status_code == 204
            assert list(told) == [("gone", {})]

    async def test_a_person_has_so_many_at_once_and_gets_new_ones_for_those_that_were_closed(self, at: Place) -> None:
        made = await queued(at)
        with ExitStack() as open_ones:
            # A reader that is dropped closes its stream.
            readers = [events(open_ones.enter_context(stream(at, made))) for _ in range(watching.MOST_OF_ONE)]
            assert [next(reader)[0] for reader in readers] == ["state"] * watching.MOST_OF_ONE
            refused = open_ones.enter_context(stream(at, made))
            refused.read()
            assert (refused.status_code, refused.json()["code"]) == (429, "busy")
            assert int(refused.headers["retry-after"]) >= 1
            with stream(at, made, "member") as others:
                assert others.status_code == 200

        def again() -> bool:
            with stream(at, made) as response:
                return response.status_code == 200

        await eventually(again)

    async def test_a_server_that_is_told_to_end_ends_its_streams(self, place: Place, spawn: Any) -> None:
        server: Server = spawn()
        made = await queued(place)
        with stream(place, made, server=server) as response:
            told = events(response)
            next(told)
            server.send_signal(signal.SIGTERM)
            assert list(told) == []
        assert server.ended(10) == 0

    async def test_it_ends_with_the_token_that_it_was_asked_with(self, place: Place, spawn: Any) -> None:
        server: Server = spawn(env=options(CHAT={"TOKEN_LIFETIME": 3.0, "REVALIDATE_SECONDS": 0.3}))
        made = await queued(place)
        viewer = place.people["viewer"]
        late = replace(place, people={"viewer": replace(viewer, token=tokens.mint(viewer.user))}, server=server)
        with stream(late, made, timeout=10) as response:
            # It goes on for as long as the token holds, and the document isn't gone.
            assert [name for name, _ in events(response)] == ["state"]
        again = late.ask("viewer", "GET", f"/documents/{made}/events")
        assert (again.status_code, again.json()["code"]) == (401, "sign_in_required")

    async def test_another_persons_document_has_none(self, at: Place) -> None:
        made = await queued(at)
        assert at.ask("other", "GET", f"/documents/{made}/events").status_code == 404


class TestWithinTheProcess:
    """What takes minutes at a server."""

    @pytest.fixture(params=["token"])
    async def watch(self, request: pytest.FixtureRequest, place: Place, monkeypatch: pytest.MonkeyPatch) -> Any:
        monkeypatch.setattr(rest, "HEARTBEAT", 0.05)
        monkeypatch.setattr(watching, "_LOOK", 0.02)
        made = await queued(place)
        member = place.people["member"]
        asked: Any = RequestFactory().get("/")
        if request.param == "token":
            asked.META["HTTP_AUTHORIZATION"] = f"Bearer {member.token}"
        else:
            asked.COOKIES[settings.SESSION_COOKIE_NAME] = await database.run(signed_in, member)
        asked.auth = replace(member.caller, by_token=request.param == "token")
        row = await database.run(lambda: Document.objects.get(id=made))
        return rest._stream(asked, place.workspace, Watch(row.id, member.user.pk, seen(row)))

    async def until(self, told: Any, word: bytes) -> None:
        async with asyncio.timeout(10):
            async for piece in told:
                if word in piece:
                    return
        raise AssertionError(f"it ended without {word!r}")

    async def test_a_silent_stream_lives_and_ends_after_a_while(self, watch: Any, monkeypatch: Any) -> None:
        await self.until(watch, b"still here")
        assert watcher_size() == 1
        await watch.aclose()
        assert watcher_size() == 0

    async def test_it_ends_after_its_time(self, watch: Any, monkeypatch: Any) -> None:
        monkeypatch.setattr(rest, "_LONGEST", 0.2)
        pieces = await within(10, _all(watch))
        assert pieces[0].startswith(b"retry:")
        assert watcher_size() == 0

    async def test_who_may_not_see_the_document_any_more_hears_no_more(self, watch: Any, place: Place) -> None:
        await self.until(watch, b"event: state")

        def restrict() -> None:
            scope = Scope(place.workspace, place.people["owner"].user.pk)
            with scope.wall():
                collections.change(scope, "default", {"access": "restricted"})
            assert not CollectionMember.objects.filter(user=place.people["member"].user).exists()

        await database.run(restrict)
        await self.until(watch, b"event: gone")

    async def test_nor_while_there_is_much_to_tell(self, watch: Any, place: Place, monkeypatch: Any) -> None:
        monkeypatch.setattr(rest, "HEARTBEAT", 2.0)

        async def embed() -> None:
            while True:
                await database.run(Document.objects.filter(source="queued.md").update, done=F("done") + 1)

        embedding = asyncio.create_task(embed())
        await self.until(watch, b"event: state")
        await database.run(Membership.objects.filter(user=place.people["member"].user).delete)
        await self.until(watch, b"event: gone")
        embedding.cancel()

    @pytest.mark.parametrize("watch", ["token", "cookie"], indirect=True)
    async def test_who_has_signed_out_hears_no_more_and_is_not_told_that_it_is_gone(
        self, watch: Any, place: Place
    ) -> None:
        await self.until(watch, b"still here")
        await self.until(watch, b"still here")

        def sign_out() -> None:
            user = place.people["member"].user
            user.set_password("another horse")  # ends the tokens and the sessions
            user.save()

        await database.run(sign_out)
        assert b"gone" not in b"".join(await within(10, _all(watch)))
        assert watcher_size() == 0

    async def test_a_database_that_is_away_for_a_moment_ends_no_stream(self, watch: Any, monkeypatch: Any) -> None:
        real, failed = watching._states, []

        def states(ids: Any) -> Any:
            if len(failed) < 3:
                failed.append(ids)
                raise OSError("a bug, or a database that goes")
            return real(ids)

        monkeypatch.setattr(watching, "_states", states)
        await self.until(watch, b"event: state")
        await database.run(Document.objects.filter(source="queued.md").update, state="ready")
        await self.until(watch, b'"ready"')
        assert len(failed) == 3


def signed_in(person: Person) -> str:
    """The session of their browser."""
    browser = Browser()
    browser.force_login(person.user)
    return str(browser.session.session_key)


async def _all(told: Any) -> list[bytes]:
    return [piece async for piece in told]


def watcher_size() -> int:
    return Watcher.current()._of.total()
