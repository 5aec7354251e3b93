"""Collections over REST: made, found, renamed, restricted, deleted, by each kind of member."""

import asyncio
import threading
from typing import Any
from uuid import uuid4

from django.db import connection, transaction

from accounts.models import Membership, Role
from kernel import database
from tests.support.stage import eventually
from tests.vectorstore.rest.conftest import Place
from vectorstore.models import Chunk, Collection, Document


async def test_a_collection_is_made_found_changed_and_deleted(place: Place) -> None:
    made = place.collection("manuals", "member", description="what we sell", language="german")
    shown = place.get(f"/collections/{made}", "viewer")
    assert (shown["name"], shown["language"], shown["workspace"]) == ("manuals", "german", str(place.workspace))
    assert shown["documents"] == {"queued": 0, "parsing": 0, "embedding": 0, "ready": 0, "failed": 0}
    assert place.ask("member", "PATCH", f"/collections/{made}", json={"name": "books"}).status_code == 403
    changed = place.ask("admin", "PATCH", f"/collections/{made}", json={"name": "books"})
    assert (changed.json()["name"], changed.json()["description"]) == ("books", "what we sell")
    assert place.ask("member", "DELETE", f"/collections/{made}").status_code == 403
    assert place.ask("admin", "DELETE", f"/collections/{made}").status_code == 204
    assert place.ask("admin", "GET", f"/collections/{made}").status_code == 404
    assert place.collection("books") != made


async def test_a_name_is_taken_once(place: Place) -> None:
    place.collection("one")
    two = place.collection("two")
    body = {"name": "one", "workspace": str(place.workspace)}
    assert place.ask("owner", "POST", "/collections", json=body).status_code == 409
    assert place.ask("owner", "PATCH", f"/collections/{two}", json={"name": "one"}).status_code == 409
    # A collection gets this name while it is deleted, and couldn't.
    gone = {"name": f"deleted {two}"}
    assert place.ask("owner", "PATCH", f"/collections/{two}", json=gone).status_code == 422
    assert place.ask("owner", "POST", "/collections", json={**body, **gone}).status_code == 422


async def test_what_makes_no_sense_is_refused(place: Place) -> None:
    for body in ({"name": ""}, {"name": " "}, {"name": "a", "language": "klingon"}, {"name": "a", "more": 1}, {}):
        asked = {"workspace": str(place.workspace)} | body
        assert place.ask("owner", "POST", "/collections", json=asked).status_code == 422, body
    assert place.ask("owner", "GET", "/collections/nonsense").status_code == 422


async def test_the_list_comes_in_pages(place: Place) -> None:
    made = [place.collection(f"c{n}") for n in range(3)]
    first = place.get("/collections", limit=2)
    second = place.get("/collections", limit=2, before=first["next"])
    assert [row["id"] for row in (*first["collections"], *second["collections"])] == made[::-1]
    assert second["next"] is None


async def test_default_stands_for_the_default_collection(place: Place) -> None:
    assert place.ask("owner", "GET", "/collections/default").status_code == 404
    await place.ingest()
    assert place.get("/collections/default")["documents"]["ready"] == 1
    stats = place.get("/collections/default/stats", "viewer")
    assert stats["chunks"] == place.get("/collections/default/documents")["documents"][0]["chunk_count"] > 0
    assert [(each["backend"], each["state"]) for each in stats["vector_sets"]] == [("pgvector", "active")]


async def test_a_restricted_collection_is_there_for_its_members_and_the_admins(place: Place) -> None:
    made = place.collection("secret", access="restricted")
    document = await place.ingest(collection="secret")
    member, paths = place.people["member"].user.pk, (f"/collections/{made}", f"/documents/{document}")
    for path in paths:
        seen = {who: place.ask(who, "GET", path).status_code for who in place.people}
        assert seen == {"owner": 200, "admin": 200, "member": 404, "viewer": 404, "other": 404}
    assert place.get("/collections", "member")["collections"] == []

    assert place.ask("admin", "PUT", f"/collections/{made}/members/{member}", json={}).status_code == 200
    assert all(place.ask("member", "GET", path).status_code == 200 for path in paths)
    assert place.ask("member", "PATCH", paths[1], json={"title": "x"}).status_code == 403
    place.ask("admin", "PUT", f"/collections/{made}/members/{member}", json={"can_write": True})
    assert place.ask("member", "PATCH", paths[1], json={"title": "x"}).status_code == 200
    shown = place.get(f"/collections/{made}/members", "admin")["members"]
    assert {(row["user"], row["can_write"]) for row in shown} == {
        (place.people["owner"].user.pk, True),
        (member, True),
    }
    assert place.ask("admin", "DELETE", f"/collections/{made}/members/{member}").status_code == 204
    assert all(place.ask("member", "GET", path).status_code == 404 for path in paths)
    assert place.ask("admin", "DELETE", f"/collections/{made}/members/{member}").status_code == 404


async def test_who_may_write_a_restricted_collection_is_still_no_writer_as_a_viewer(place: Place) -> None:
    made = place.collection("secret", access="restricted")
    document = await place.ingest(collection="secret")
    viewer = place.people["viewer"].user.pk
    place.ask("owner", "PUT", f"/collections/{made}/members/{viewer}", json={"can_write": True})
    assert place.ask("viewer", "GET", f"/documents/{document}").status_code == 200
    assert place.ask("viewer", "DELETE", f"/documents/{document}").status_code == 403


async def test_only_people_of_the_workspace_become_members(place: Place) -> None:
    made = place.collection("secret", access="restricted")
    for user_id in (place.people["other"].user.pk, 2_000_000_000):
        response = place.ask("owner", "PUT", f"/collections/{made}/members/{user_id}", json={})
        assert response.status_code == 404
    member = place.people["member"].user.pk
    assert place.ask("viewer", "PUT", f"/collections/{made}/members/{member}", json={}).status_code == 404


async def test_who_comes_back_into_the_workspace_is_not_back_in_its_restricted_collections(place: Place) -> None:
    made, other = (place.collection(name, access="restricted") for name in ("secret", "theirs"))
    member, viewer = (place.people[who].user for who in ("member", "viewer"))
    for user in (member, viewer):
        place.ask("owner", "PUT", f"/collections/{made}/members/{user.pk}", json={"can_write": True})

    def leave_and_return() -> None:
        memberships = Membership.objects.filter(workspace=place.workspace, user=member)
        memberships.delete()
        Membership.objects.create(workspace_id=place.workspace, user=member, role=Role.MEMBER)

    await database.run(leave_and_return)
    assert place.ask("member", "GET", f"/collections/{made}").status_code == 404
    assert place.ask("viewer", "GET", f"/collections/{made}").status_code == 200
    assert {each["user"] for each in place.get(f"/collections/{made}/members")["members"]} == {
        viewer.pk,
        place.people["owner"].user.pk,
    }
    assert place.get(f"/collections/{other}/members")["members"] != []


async def test_several_who_delete_a_collection_at_once_find_it_gone(place: Place) -> None:
    made = place.collection("twice")
    locked, go = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            Collection.objects.select_for_update().get(pk=made)
            locked.set()
            go.wait(10)
            Collection.objects.filter(pk=made).delete()

    holding = asyncio.ensure_future(database.run(hold))
    await asyncio.to_thread(locked.wait, 10)
    asked: list[tuple[str, str, dict[str, Any]]] = [
        ("DELETE", "", {}),
        ("PATCH", "", {"json": {"name": "other"}}),
        ("PUT", f"/members/{place.people['viewer'].user.pk}", {"json": {}}),
    ]
    waiting = [
        asyncio.create_task(asyncio.to_thread(place.ask, "owner", how, f"/collections/{made}{where}", **body))
        for how, where, body in asked
    ]
    await eventually(lambda: _locks_waited_for() == len(asked))
    go.set()
    await holding
    assert [each.status_code for each in await asyncio.gather(*waiting)] == [404] * len(asked)


def _locks_waited_for() -> int:
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE %s",
                ["%vectorstore_collection%FOR UPDATE%"],
            )
            return int(cursor.fetchone()[0])
    finally:
        connection.close()


async def test_a_collection_takes_its_documents_with_it_in_parts(place: Place) -> None:
    made = place.collection("many")
    await place.ingest(collection="many")

    def fill() -> None:
        Document.objects.bulk_create(
            Document(workspace_id=place.workspace, collection_id=made, title="t", source=f"{n}") for n in range(120)
        )

    await database.run(fill)
    assert place.ask("owner", "DELETE", f"/collections/{made}").status_code == 204

    def left() -> list[int]:
        return [kind.objects.filter(workspace_id=place.workspace).count() for kind in (Collection, Document, Chunk)]

    assert await database.run(left) == [0, 0, 0]


async def test_a_foreign_workspace_is_refused_and_its_objects_are_not_there(place: Place) -> None:
    made = place.collection("manuals")
    assert place.ask("other", "GET", "/collections").status_code == 403
    foreign = place.ask("other", "GET", f"/collections/{made}")
    own = place.ask("other", "GET", f"/collections/{made}", params={"workspace": place.own("other")})
    missing = place.ask("other", "GET", f"/collections/{uuid4()}", params={"workspace": place.own("other")})
    assert [each.status_code for each in (foreign, own, missing)] == [404] * 3
    assert own.json() == missing.json()
