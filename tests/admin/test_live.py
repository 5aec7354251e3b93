"""The admin of a server that runs: under ASGI, beside chats."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import uuid4

import httpx2 as httpx
from django.contrib.auth import get_user_model

from chat.models import ChatHistory, ChatSession
from kernel import database
from tests.conftest import Person
from tests.support.scripted_provider import Gate, ScriptedProvider, ok, until
from tests.support.server import Server
from tests.support.stage import no_traceback, settings, talking


@contextmanager
def signed_in(server: Server, name: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=20) as client:
        form = {"username": name, "password": "correct horse", "next": "/admin/", "csrfmiddlewaretoken": ""}
        form["csrfmiddlewaretoken"] = token_of(client.get("/admin/login/").text)
        assert client.post("/admin/login/", data=form).status_code == 302
        yield client


def token_of(html: str) -> str:
    found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', html)
    assert found is not None
    return found[1]


async def test_a_session_that_is_deleted_while_it_is_answered_ends_quietly(
    spawn: Callable[..., Server], person: Person, provider: ScriptedProvider
) -> None:
    server, name, gate = spawn(env=settings(CHAT={"REVALIDATE_SECONDS": 0.3})), f"operator-{uuid4()}", Gate()
    provider.script("deleted", talking(gate), ok())
    await database.run(get_user_model().objects.create_superuser, name, f"{name}@example.org", "correct horse")
    session_id = person.new_session(server)
    async with person.client(server, session_id) as client:
        answer_id = (await client.send("[[deleted]]"))["answer_id"]
        await client.shows(answer_id, "9 é")
        with signed_in(server, name) as admin:
            assert session_id in admin.get("/admin/chat/chatsession/").text
            path = f"/admin/chat/chatsession/{session_id}/delete/"
            form = {"post": "yes", "csrfmiddlewaretoken": token_of(admin.get(path).text)}
            assert admin.post(path, data=form).status_code == 302
            assert "was deleted" in admin.get("/admin/chat/chatsession/").text
            assert session_id not in admin.get("/admin/chat/chatsession/").text
        (asked,) = provider.exchanges("deleted")
        assert await until(asked.disconnected), "nobody waits for the answer any more"
        assert await client.closed() == 4003
    gate.release()
    assert not await database.run(ChatSession.objects.filter(id=session_id).exists)
    assert not await database.run(ChatHistory.objects.filter(id=answer_id).exists)
    async with person.client(server, person.new_session(server)) as client:
        assert (await client.ask("hello"))["status"] == "complete"
    no_traceback(server)
