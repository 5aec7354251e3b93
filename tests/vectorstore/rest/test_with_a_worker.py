"""What people do over REST and a worker does: told at once, followed to its end."""

from collections.abc import Iterator

import pytest

from kernel import database
from tests.support.stage import eventually
from tests.support.worker import Worker
from tests.vectorstore.rest.conftest import TEXT, Place
from tests.vectorstore.rest.test_watching import events, stream
from vectorstore.models import VectorSet


@pytest.fixture(scope="module")
def worker(live_database: None, server_env: dict[str, str]) -> Iterator[Worker]:
    with Worker(server_env) as worker:
        yield worker
        assert "Traceback" not in worker.log_text()


async def test_an_upload_is_followed_until_it_is_found_and_its_vectors_are_made_anew(
    place: Place, worker: Worker
) -> None:
    sent = place.ask("member", "POST", "/collections/default/documents", files=[("files", ("a.md", TEXT.encode()))])
    [made] = sent.json()["documents"]
    with stream(place, made["document"]["id"]) as response:
        states = [state["state"] for _, state in events(response)]
    assert states[-1] == "ready"

    def ask() -> list[str]:
        body = {"query": "How long is the warranty?", "workspace": str(place.workspace)}
        answer = place.ask("viewer", "POST", "/search", json=body)
        return [hit["source"] for hit in answer.json().get("hits", [])]

    assert "a.md" in ask()
    rows = VectorSet.objects.filter(workspace_id=place.workspace)
    await database.run(lambda: rows.update(embedding_model="fake:old", dimension=7))
    assert place.ask("owner", "POST", "/collections/default/reembed", json={}).status_code == 202
    await eventually(lambda: place.get("/collections/default/reembed")["building"] is None, deadline=30)
    assert place.get("/collections/default/reembed")["active"]["embedding_model"] != "fake:old"
    assert "a.md" in ask()


async def test_many_uploads_are_followed_in_one_stream_those_that_fail_too(place: Place, worker: Worker) -> None:
    files = [("files", (f"{n}.json", b'{"a": ' if n % 3 else f'{{"number": {n}}}'.encode())) for n in range(12)]
    files += [("files", (f"{n}.md", f"# Part {n}\n\n{TEXT}".encode())) for n in range(12)]
    sent = place.ask("member", "POST", "/collections/default/documents", files=files).json()["documents"]
    last: dict[str, str] = {}
    while set(last) != {each["document"]["id"] for each in sent} or set(last.values()) - {"ready", "failed"}:
        # It ends when nothing is on the way; another one tells of what came since.
        with stream(place, "/collections/default/documents") as response:
            *told, (name, _) = list(events(response))
        assert name == "settled"
        last |= {state["document"]: state["state"] for _, state in told}
    # Of the broken ones the same bytes are one document, until that one has failed.
    listed = place.get("/collections/default/documents", limit=100)["documents"]
    assert last == {each["id"]: each["state"] for each in listed}
    assert sorted(last.values()).count("ready") == 16
