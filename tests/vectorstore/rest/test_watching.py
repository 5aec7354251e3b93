"""Following documents: lists that say when nothing has changed, and the states of one as they come."""

import asyncio
import json
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx2 as httpx
import pytest
from django.conf import settings
from django.db.models import F
from django.test import Client as Browser
from django.test import RequestFactory
from django.utils import timezone

from accounts import tokens
from accounts.models import Membership
from kernel import database
from kernel.ids import first_id
from tests.support.server import Server
from tests.support.stage import eventually, within
from tests.support.stage import settings as options
from tests.vectorstore.rest.conftest import Place
from vectorstore import collections, documents, watching
from vectorstore.models import CollectionMember, Document
from vectorstore.rest import watching as rest
from vectorstore.scope import Scope
from vectorstore.watching import CollectionWatch, DocumentWatch, Looked, Seen, Watcher, seen

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
    place: Place, of: str, who: str = "viewer", *, server: Server | None = None, timeout: float = 20
) -> Iterator[Any]:
    """The events of a document (its id), or of what stands at another path."""
    headers = {"Authorization": f"Bearer {place.people[who].token}"}
    url = f"{(server or place.server).url}/api/v1{of if '/' in of else f'/documents/{of}'}/events"
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


class TestADocumentsStream:
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

    @pytest.mark.parametrize("of", ["a document", LIST])
    async def test_a_person_has_so_many_at_once_and_gets_new_ones_for_those_that_were_closed(
        self, at: Place, of: str
    ) -> None:
        made = await queued(at)
        made = of if of == LIST else made
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


async def documents_in(
    place: Place, *states: str, collection: str = "default", age: timedelta = timedelta()
) -> list[str]:
    """Documents of a collection in these states, which were added so long ago."""
    into = place.get(f"/collections/{collection}")["id"]

    def make() -> list[str]:
        made = first_id(timezone.now() - age)
        ids = [UUID(int=made.int + uuid4().int % 2**64) for _ in states]
        Document.objects.bulk_create(
            Document(id=id_, workspace_id=place.workspace, collection_id=into, title="t", source=str(id_), state=state)
            for id_, state in zip(ids, states, strict=True)
        )
        return [str(each) for each in ids]

    return await database.run(make)


class TestACollectionsStream:
    async def test_the_states_of_all_that_are_on_the_way_are_told_until_none_is(self, at: Place) -> None:
        await at.ingest()
        first, second, third = await documents_in(at, "queued", "embedding", "queued")
        with stream(at, LIST) as response:
            told = events(response)

            def then(number: int = 1) -> list[tuple[str, str, str]]:
                found = [next(told) for _ in range(number)]
                return sorted((name, data.get("document"), data.get("state")) for name, data in found)

            def changed(which: str, **values: Any) -> Any:
                return database.run(lambda: watched(Document.objects.filter(id=which), **values))

            # That of the text that is found was added lately.
            assert {(state, name) for name, _, state in then(4)} == {
                ("queued", "state"),
                ("embedding", "state"),
                ("ready", "state"),
            }
            await changed(second, done=3, total=5)
            assert next(told) == (
                "state",
                {"document": second, "state": "embedding", "done": 3, "total": 5, "error_code": "", "reason": ""},
            )
            await changed(second, state="ready")
            assert then() == [("state", second, "ready")]
            [late] = await documents_in(at, "parsing")
            assert then() == [("state", late, "parsing")]
            await changed(late, state="failed", error_code="encrypted")
            assert then() == [("state", late, "failed")]
            assert at.ask("owner", "DELETE", f"/documents/{third}").status_code == 204
            assert then() == [("gone", third, None)]
            await changed(first, state="ready")
            assert then() == [("state", first, "ready")]
            assert list(told) == [("settled", {})]

    async def test_what_was_over_before_anybody_looked_is_told_if_it_was_added_lately(self, at: Place) -> None:
        await at.ingest()
        [ready] = [each["id"] for each in at.get(LIST)["documents"]]
        [failed] = await documents_in(at, "failed", age=timedelta(minutes=4))
        await documents_in(at, "ready", "failed", age=timedelta(minutes=6))
        with stream(at, LIST) as response:
            *told, last = list(events(response))
        assert {(data["document"], data["state"]) for _, data in told} == {(ready, "ready"), (failed, "failed")}
        assert last == ("settled", {})

    async def test_an_old_one_that_is_read_anew_is_told_to_its_end(self, at: Place) -> None:
        await at.ingest()
        [old, idle] = await documents_in(at, "embedding", "ready", age=timedelta(days=9))
        with stream(at, LIST) as response:
            told = events(response)
            assert {next(told)[1]["document"] for _ in range(2)} - {old} != {idle}
            await database.run(lambda: watched(Document.objects.filter(id=old), state="ready"))
            assert [(name, data.get("document")) for name, data in told] == [("state", old), ("settled", None)]

    async def test_another_collections_documents_are_not_told(self, at: Place) -> None:
        await at.ingest()
        secret = at.collection("secret", access="restricted")
        [hidden] = await documents_in(at, "queued", collection=secret)
        with stream(at, LIST) as response:
            assert hidden not in [data.get("document") for _, data in events(response)]
        of_secret = f"/collections/{secret}/documents"
        assert at.ask("viewer", "GET", f"{of_secret}/events").status_code == 404
        with stream(at, of_secret, "owner") as response:
            assert next(events(response))[1]["document"] == hidden

    async def test_one_without_documents_is_settled_at_once(self, at: Place) -> None:
        with stream(at, f"/collections/{at.collection('empty')}/documents", timeout=10) as response:
            assert list(events(response)) == [("settled", {})]


#: A test of the streams of a document and of a collection.
of_each = pytest.mark.parametrize("watch", [DocumentWatch, CollectionWatch], indirect=True)


class TestWithinTheProcess:
    """What takes minutes at a server."""

    @pytest.fixture
    async def asked(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> Any:
        """A request of the member's, with their token."""
        monkeypatch.setattr(rest, "HEARTBEAT", 0.05)
        monkeypatch.setattr(watching, "_LOOK", 0.02)
        member = place.people["member"]
        asked: Any = RequestFactory().get("/", HTTP_AUTHORIZATION=f"Bearer {member.token}")
        asked.auth = replace(member.caller, by_token=True)
        return asked

    @pytest.fixture(params=[DocumentWatch])
    async def watch(self, request: pytest.FixtureRequest, place: Place, asked: Any) -> Any:
        made = await queued(place)
        row = await database.run(lambda: Document.objects.get(id=made))
        if request.param is DocumentWatch:
            watch = DocumentWatch(row.pk, asked.auth.user_id, seen(row))
            return rest._stream(asked, place.workspace, watch, documents.readable)
        whole = CollectionWatch(row.collection_id, asked.auth.user_id)
        return rest._stream(asked, place.workspace, whole, collections.readable)

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

    @of_each
    async def test_who_may_not_see_the_document_any_more_hears_no_more(self, watch: Any, place: Place) -> None:
        await self.until(watch, b"event: state")

        def restrict() -> None:
            scope = Scope(place.workspace, place.people["owner"].user.pk)
            with scope.wall():
                collections.change(scope, "default", {"access": "restricted"})
            assert not CollectionMember.objects.filter(user=place.people["member"].user).exists()

        await database.run(restrict)
        await self.until(watch, b"event: gone\ndata: {}\n")

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

    @of_each
    @pytest.mark.parametrize("by", ["token", "cookie"])
    async def test_who_has_signed_out_hears_no_more_and_is_not_told_that_it_is_gone(
        self, asked: Any, watch: Any, by: str, place: Place
    ) -> None:
        user = place.people["member"].user
        if by == "cookie":
            del asked.META["HTTP_AUTHORIZATION"]
            asked.COOKIES[settings.SESSION_COOKIE_NAME] = await database.run(session_of, user)
            asked.auth = replace(asked.auth, by_token=False)
        await self.until(watch, b"still here")
        await self.until(watch, b"still here")

        def sign_out() -> None:
            user.set_password("another horse")  # ends the tokens and the sessions
            user.save()

        await database.run(sign_out)
        assert b"gone" not in b"".join(await within(10, _all(watch)))
        assert watcher_size() == 0

    async def test_a_database_that_is_away_for_a_moment_ends_no_stream(self, watch: Any, monkeypatch: Any) -> None:
        real, failed = watching._looked, []

        def looked(*asked: Any) -> Any:
            if len(failed) < 3:
                failed.append(asked)
                raise OSError("a bug, or a database that goes")
            return real(*asked)

        monkeypatch.setattr(watching, "_looked", looked)
        await self.until(watch, b"event: state")
        await database.run(Document.objects.filter(source="queued.md").update, state="ready")
        await self.until(watch, b'"ready"')
        assert len(failed) == 3


def session_of(user: Any) -> str:
    """The session of their browser, which they sign in with."""
    browser = Browser()
    browser.force_login(user)
    return str(browser.session.session_key)


WAITS, READS, READY = (
    Seen(state=state, done=0, total=0, error_code="", reason="") for state in ("queued", "parsing", "ready")
)


class TestAWatchOfACollection:
    """What it asks for and tells, look by look."""

    @pytest.fixture
    def watch(self) -> CollectionWatch:
        return CollectionWatch(uuid4(), 1)

    def look(self, watch: CollectionWatch, found: dict[UUID, Seen], **those: Any) -> None:
        watch.asked()
        watch.show(Looked(documents=those.get("documents", {}), collections={watch.of: found}))

    def told(self, watch: CollectionWatch) -> list[tuple[str, Any, Any]]:
        return [(name, data.get("document"), data.get("state")) for name, data in watch.take()]

    def test_before_the_first_look_nothing_is_settled(self, watch: CollectionWatch) -> None:
        assert (self.told(watch), watch.over) == ([], False)
        self.look(watch, {})
        assert (self.told(watch), watch.over) == ([("settled", None, None)], True)

    def test_one_that_is_found_no_more_is_asked_for_and_told_to_its_end(self, watch: CollectionWatch) -> None:
        one, other = uuid4(), uuid4()
        self.look(watch, {one: READS, other: WAITS})
        assert len(self.told(watch)) == 2
        assert set(watch.asked()[0]) == {one, other}
        self.look(watch, {other: WAITS}, documents={one: READY, other: WAITS})
        assert self.told(watch) == [("state", one, "ready")]
        assert self.told(watch) == []
        assert set(watch.asked()[0]) == {other}

    def test_what_is_told_during_a_look_is_asked_for_by_the_next_one(self, watch: CollectionWatch) -> None:
        one, other = uuid4(), uuid4()
        self.look(watch, {one: READS, other: WAITS})
        documents, _ = watch.asked()
        assert len(self.told(watch)) == 2
        # It has ended since, and was in no question of this look.
        assert list(documents) == []
        watch.show(Looked(documents={}, collections={watch.of: {}}))
        assert (self.told(watch), watch.over) == ([], False)
        assert set(watch.asked()[0]) == {one, other}
        self.look(watch, {}, documents={one: READY, other: None})
        assert set(self.told(watch)) == {("state", one, "ready"), ("gone", other, None), ("settled", None, None)}

    def test_a_reader_who_takes_nothing_for_a_while_gets_the_newest_states(self, watch: CollectionWatch) -> None:
        one = uuid4()
        self.look(watch, {one: WAITS})
        self.look(watch, {one: READS})
        assert self.told(watch) == [("state", one, "parsing")]
        for _ in range(2):
            self.look(watch, {}, documents={one: READY})
        assert self.told(watch) == [("state", one, "ready"), ("settled", None, None)]

    def test_those_that_newer_ones_keep_out_of_sight_are_not_remembered(self, watch: CollectionWatch) -> None:
        seen: list[UUID] = []
        for _ in range(50):
            new = {uuid4(): WAITS for _ in range(10)}
            self.look(watch, new, documents=dict.fromkeys(seen, WAITS))
            assert {document for _, document, _ in self.told(watch)} == set(new)
            seen = list(watch.asked()[0])
            assert len(seen) == 10
        assert not watch.over

    async def test_of_a_large_collection_the_newest_are_told(self, place: Place, monkeypatch: Any) -> None:
        monkeypatch.setattr(watching, "_MOST_SHOWN", 3)
        await place.ingest()
        waiting = await documents_in(place, *["queued"] * 5, age=timedelta(hours=1))
        [working] = await documents_in(place, "embedding", age=timedelta(hours=2))
        collection = UUID(place.get("/collections/default")["id"])
        looked = await database.run(watching._looked, set(), {collection})
        told = {str(each): state.state for each, state in looked.collections[collection].items()}
        assert set(told) - set(waiting) - {working} == {
            each["id"] for each in place.get(LIST, state="ready")["documents"]
        }
        assert {each for each in told if told[each] == "queued"} == set(sorted(waiting)[2:])
        assert told[working] == "embedding"
        monkeypatch.setattr(watching, "_MOST_OF_A_LOOK", 4)
        both = {collection, UUID(place.collection("other"))}
        looked = await database.run(watching._looked, set(), both)
        assert [state.state for state in looked.collections[collection].values()].count("queued") == 2


async def _all(told: Any) -> list[bytes]:
    return [piece async for piece in told]


def watcher_size() -> int:
    return Watcher.current()._of.total()
