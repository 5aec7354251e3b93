"""Re-embedding over REST: begun once, watched, given up; by whom."""

from dataclasses import replace
from typing import Any
from uuid import UUID

from kernel import database
from llm.embeddings.embedder import embedder
from tests.support import stage
from tests.support.server import free_port
from tests.vectorstore.rest.conftest import Place
from vectorstore import reembedding
from vectorstore.models import SetState, VectorSet

HERE = "/collections/default/reembed"


async def outdated(place: Place) -> None:
    """The default collection with a document, and with vectors of a model that the server doesn't have."""
    await place.ingest()

    def age() -> None:
        VectorSet.objects.filter(workspace_id=place.workspace).update(embedding_model="fake:old", dimension=7)

    await database.run(age)


async def building(place: Place) -> UUID:
    def look() -> UUID:
        found: UUID = VectorSet.objects.get(workspace_id=place.workspace, state=SetState.BUILDING).id
        return found

    return await database.run(look)


async def test_it_is_begun_watched_to_its_end_and_searches_ask_the_new_model(place: Place) -> None:
    await outdated(place)
    begun = place.ask("admin", "POST", HERE, json={"model": "default"})
    assert begun.status_code == 202, begun.text
    made = embedder()
    new = {"embedding_model": made.model, "dimension": made.dimension, "backend": "pgvector"}
    shown = begun.json()
    assert shown["active"] == {"embedding_model": "fake:old", "dimension": 7, "backend": "pgvector"}
    assert shown["building"] == new | {"done": 0, "total": 2, "reason": ""}
    assert place.get(HERE, "viewer") == shown

    assert (await reembedding.work(await building(place)))[0] == "switched"
    assert place.get(HERE, "viewer") == {"active": new, "building": None}
    body = {"query": "How long is the warranty?", "workspace": str(place.workspace)}
    assert "two years" in place.ask("viewer", "POST", "/search", json=body).json()["hits"][0]["text"]


async def test_a_second_start_is_a_conflict_and_so_is_what_it_has_already(place: Place) -> None:
    await outdated(place)
    assert place.ask("owner", "POST", HERE, json={}).status_code == 202
    again = place.ask("owner", "POST", HERE, json={})
    assert (again.status_code, again.json()["code"]) == (409, "conflict")
    await reembedding.work(await building(place))
    already = place.ask("owner", "POST", HERE, json={})
    assert (already.status_code, "already" in already.json()["message"]) == (409, True)


async def test_what_is_given_up_changes_nothing_and_can_be_begun_again(place: Place) -> None:
    await outdated(place)
    place.ask("owner", "POST", HERE, json={})
    given_up = await building(place)
    assert place.ask("admin", "DELETE", HERE).status_code == 204
    assert place.ask("admin", "DELETE", HERE).status_code == 404
    assert place.get(HERE)["building"] is None
    assert await reembedding.work(given_up) == ("lost", None)
    assert place.get(HERE)["active"]["embedding_model"] == "fake:old"
    assert place.ask("owner", "POST", HERE, json={}).status_code == 202


async def test_only_admins_begin_and_cancel_and_all_readers_watch(place: Place) -> None:
    await outdated(place)
    for who, begins, watches in (("member", 403, 200), ("viewer", 403, 200), ("other", 404, 404)):
        assert place.ask(who, "POST", HERE, json={"model": "nonsense"}).status_code == begins, who
        assert place.ask(who, "GET", HERE).status_code == watches, who
        assert place.ask(who, "DELETE", HERE).status_code == begins, who


async def test_a_new_store_that_is_away_is_told_and_what_was_begun_stands(place: Place, spawn: Any) -> None:
    await place.ingest()
    options = {"host": "127.0.0.1", "port": free_port(), "timeout": 1.0}
    away = replace(place, server=spawn(env=stage.settings(VECTOR_STORE={"OPTIONS": {"chroma": options}})))
    begun = away.ask("owner", "POST", HERE, json={"backend": "chroma"})
    assert begun.status_code == 202, begun.text
    shown = away.get(HERE, "viewer")
    assert (shown["active"]["backend"], shown["building"]["backend"]) == ("pgvector", "chroma")
    assert (shown["building"]["done"], "not available" in shown["building"]["reason"]) == (None, True)
    assert away.ask("owner", "DELETE", HERE).status_code == 204


async def test_a_model_or_a_store_that_the_server_lacks_is_named(place: Place) -> None:
    await outdated(place)
    for body, named in (
        ({"model": "nonsense"}, "nonsense"),
        ({"backend": "nonsense"}, "nonsense"),
        ({"backend": "chroma"}, "'path'"),
        ({"more": 1}, ""),
    ):
        response = place.ask("owner", "POST", HERE, json=body)
        assert (response.status_code, named in response.text) == (422, True), response.text
    assert place.get(HERE)["building"] is None
