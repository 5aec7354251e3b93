"""Edit, regenerate, delete: the same for every process and every client, harmless to repeat, gone from every prompt."""

import asyncio
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx2 as httpx
import pytest
from django.apps import apps
from django.db import transaction

from chat import streams
from chat.models import ChatHistory, ChatSession
from kernel import database, redis
from memory.stores import keys
from tests.conftest import Person
from tests.support import oracle
from tests.support.client import Client
from tests.support.scripted_provider import Gate, ScriptedProvider, ok, text, wait
from tests.support.server import Server
from tests.support.stage import SHORT_LEASES, move, settings

Frame = dict[str, Any]
Servers = tuple[Server, Server]


async def command(client: Client, kind: str, message_id: str | None, **more: Any) -> Frame:
    """Send a command, mostly about a message; its ack, or the error."""
    about = {"message_id": message_id} if message_id else {}
    frame = {"type": f"message.{kind}", "id": str(uuid4()), **about, **more}
    start = len(client.frames)
    await client.send_json(frame)
    return await client.wait_frame(
        lambda heard: heard["type"] in ("ack", "error") and heard.get("id") == frame["id"], start=start
    )


async def edited(client: Client, message_id: str, said: str) -> Frame:
    """Edit a question; the answer to it."""
    ack = await command(client, "edit", message_id, text=said)
    assert ack["type"] == "ack", ack
    row = await client.answer(ack["answer_id"])
    assert row["status"] == "complete", row
    return row


def branch(client: Client) -> list[str]:
    """What the client shows: the texts from its newest message up through the parents, without deleted ones."""
    row = max(client.messages.values(), key=lambda row: row["order"], default=None)
    seen = []
    while row is not None:
        seen += [] if row["deleted"] else [row["content"]]
        row = client.messages.get(row["parent"]) if row["parent"] else None
    return seen[::-1]


async def level(*clients: Client) -> None:
    """Wait until all know the same; they then show the same."""
    for client in clients:
        await client.wait(lambda client=client: client.seq == max(one.seq for one in clients))
    assert all(one.messages == clients[0].messages for one in clients)


def prompted(provider: ScriptedProvider, name: str, number: int = -1) -> list[str]:
    """The messages of the request to the provider whose question names this script."""
    return [message["content"] for message in provider.exchanges(name)[number].messages]


def scripted(provider: ScriptedProvider, said: str = "done") -> str:
    """The name of a new script; a question that holds it as [[name]] is answered with `said`."""
    name = f"b{uuid4().hex[:10]}"
    provider.script(name, text(said), ok())
    return name


# Two processes -------------------------------------------------------------------------------------------------------


async def test_an_edit_begins_a_branch_that_both_processes_see(
    servers: Servers, person: Person, provider: ScriptedProvider
) -> None:
    session_id, name = person.new_session(servers[0]), scripted(provider)
    async with person.client(servers[0], session_id) as client, person.client(servers[1], session_id) as watcher:
        await client.ask("the first question")
        old = await client.ask("the second, with a slip")
        await client.ask("the third")
        answer = await edited(client, old["parent"], f"the second, mended [[{name}]]")
        await level(client, watcher)
        assert branch(watcher) == branch(client)
        assert branch(watcher)[0] == "the first question"
        assert branch(watcher)[2:] == [f"the second, mended [[{name}]]", "done"]
        assert watcher.messages[answer["parent"]]["parent"] == watcher.messages[old["parent"]]["parent"]
        asked = " ".join(prompted(provider, name))
        assert "the first question" in asked
        assert "slip" not in asked
        assert "the third" not in asked
        # The old branch is still there to go on from.
        back = scripted(provider)
        ack = await command(watcher, "send", None, text=f"on from the old one [[{back}]]", parent=old["id"])
        await watcher.answer(ack["answer_id"])
        assert "slip" in " ".join(prompted(provider, back))
        assert "mended" not in " ".join(prompted(provider, back))
        await level(client, watcher)
        await oracle.check(session_id, client, watcher)


async def test_a_regenerated_answer_stands_beside_the_old_one_and_does_not_know_it(
    servers: Servers, person: Person, provider: ScriptedProvider
) -> None:
    session_id, name = person.new_session(servers[0]), f"b{uuid4().hex[:10]}"
    provider.script_tries(name, [text("a first try"), ok()], [text("a second try"), ok()])
    async with person.client(servers[0], session_id) as client, person.client(servers[1], session_id) as watcher:
        await client.ask("before")
        first = await client.ask(f"again? [[{name}]]")
        ack = await command(watcher, "regenerate", first["id"])
        assert ack["message_id"] == first["parent"]
        second = await watcher.answer(ack["answer_id"])
        assert (second["content"], second["parent"]) == ("a second try", first["parent"])
        await level(client, watcher)
        assert branch(client)[-2:] == [f"again? [[{name}]]", "a second try"]
        assert client.messages[first["id"]]["content"] == "a first try"
        again = prompted(provider, name, 1)
        assert again == prompted(provider, name, 0)
        assert "a first try" not in " ".join(again)
        follow = scripted(provider)
        await client.ask(f"and then? [[{follow}]]")
        assert "a second try" in " ".join(prompted(provider, follow))
        assert "a first try" not in " ".join(prompted(provider, follow))
        await level(client, watcher)
        await oracle.check(session_id, client, watcher)


async def test_a_deleted_message_is_empty_everywhere(servers: Servers, person: Person) -> None:
    session_id = person.new_session(servers[0])
    async with person.client(servers[0], session_id) as client, person.client(servers[1], session_id) as watcher:
        await client.ask("keep this")
        gone = await client.ask("my secret canary")
        await level(client, watcher)
        for message_id in (gone["parent"], gone["id"]):
            ack = await command(watcher, "delete", message_id)
            assert ack["type"] == "ack"
            assert (await command(client, "delete", message_id))["seq"] == ack["seq"]
        await level(client, watcher)
        for one in (client, watcher):
            assert [one.messages[key]["content"] for key in (gone["parent"], gone["id"])] == ["", ""]
            assert branch(one)[0] == "keep this"
            assert len(branch(one)) == 2
        stored = await database.run(lambda: list(ChatHistory.objects.filter(session_id=session_id).values()))
        assert "canary" not in str(stored)
        await buffer_gone(gone["id"])
        await oracle.check(session_id, client, watcher)


async def buffer_gone(answer_id: str) -> None:
    """Wait until Redis holds nothing of the answer: it is dropped in the background."""
    try:
        async with asyncio.timeout(5):
            while await streams.read_all(UUID(answer_id), 1) is not None:
                await asyncio.sleep(0.02)
    finally:
        await redis.close()


async def test_a_title_taken_from_a_deleted_question_goes_with_it(servers: Servers, person: Person) -> None:
    session_id = person.new_session(servers[0])
    async with person.client(servers[0], session_id) as client:
        gone = await client.ask("my secret canary")
        await command(client, "delete", gone["parent"])
    assert await database.run(lambda: ChatSession.objects.get(id=session_id).title) == ""


async def test_a_delete_by_rest_reaches_the_sockets_of_the_other_process(servers: Servers, person: Person) -> None:
    session_id = person.new_session(servers[0])
    async with person.client(servers[0], session_id) as client:
        row = await client.ask("hello")
        url = f"{servers[1].url}/api/v1/sessions/{session_id}/messages/{row['id']}"
        async with httpx.AsyncClient(headers={"Authorization": f"Bearer {person.token}"}) as http:
            assert (await http.delete(url)).status_code == 204
            await client.wait(lambda: client.messages[row["id"]]["deleted"])
            assert (await http.delete(url)).status_code == 204
        await oracle.check(session_id, client)


# What a model is told ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("store", ["postgres", "redis", "inmemory"])
async def test_no_prompt_after_a_delete_holds_the_deleted_text(
    servers: Servers, person: Person, provider: ScriptedProvider, store: str
) -> None:
    session_id, gone, warm, after = person.new_session(servers[0]), *(scripted(provider) for _ in range(3))
    provider.script(gone, text("the canary's answer"), ok())
    await oracle.give_workflow(session_id, [{"type": "memory", "store": store}, {"type": "prompt"}, {"type": "llm"}])
    async with person.client(servers[0], session_id) as client, person.client(servers[1], session_id) as watcher:
        await client.ask("keep this")
        row = await client.ask(f"canary [[{gone}]]")
        await client.ask(f"is it remembered? [[{warm}]]")
        assert sum("canary" in said for said in prompted(provider, warm)) == 2
        for message_id in (row["parent"], row["id"]):
            assert (await command(watcher, "delete", message_id))["type"] == "ack"
        await client.ask(f"and now? [[{after}]]")
        told = prompted(provider, after)
        assert "canary" not in " ".join(told)
        assert "keep this" in told
        assert f"is it remembered? [[{warm}]]" in told


async def test_the_store_for_one_process_refuses_a_second_one(servers: Servers, person: Person) -> None:
    session_id = person.new_session(servers[0])
    steps = [{"type": "memory", "store": "inmemory"}, {"type": "prompt"}, {"type": "llm"}]
    await oracle.give_workflow(session_id, steps)
    async with person.client(servers[0], session_id) as client, person.client(servers[1], session_id) as watcher:
        assert (await client.ask("one"))["status"] == "complete"
        refused = await watcher.ask("two")
        assert (refused["status"], refused["error_code"]) == ("failed", "misconfigured")
        assert (await client.ask("three"))["status"] == "complete"


async def test_a_question_that_waited_while_something_was_deleted_does_not_recall_it(
    servers: Servers, person: Person, provider: ScriptedProvider
) -> None:
    session_id, held, queued = person.new_session(servers[0]), f"b{uuid4().hex[:10]}", scripted(provider)
    gate = Gate()
    provider.script(held, text("so far"), wait(gate), ok())
    await oracle.give_workflow(session_id, [{"type": "memory", "store": "redis"}, {"type": "prompt"}, {"type": "llm"}])
    async with person.client(servers[0], session_id) as client:
        gone = await client.ask("canary")
        first = await client.send(f"hold [[{held}]]")
        await client.shows(first["answer_id"], "so far")
        second = await client.send(f"wait [[{queued}]]")
        await command(client, "delete", gone["parent"])
        await command(client, "delete", gone["id"])
        gate.release()
        await client.answer(second["answer_id"])
        assert "canary" not in " ".join(prompted(provider, queued))
        await oracle.check(session_id, client)


async def test_what_a_process_without_redis_deletes_is_not_recalled_by_an_answer_that_has_begun(
    servers: Servers, spawn: Callable[..., Server], person: Person, provider: ScriptedProvider
) -> None:
    """The copy could not be dropped, and whoever answers can read it: it is not believed by the time of the ack."""
    apart = spawn(env={"REDIS_URL": "redis://127.0.0.1:9/0"})
    session_id, warm, held = person.new_session(servers[0]), scripted(provider), f"b{uuid4().hex[:10]}"
    gate = Gate()
    provider.script_tries(held, [wait(gate), text("thought"), ok()], [text("said"), ok()])
    memory = [{"type": "memory", "store": "redis"}, {"type": "prompt"}, {"type": "llm"}]
    await oracle.give_workflow(session_id, memory)
    async with person.client(servers[0], session_id) as client:
        gone = await client.ask("canary")
        await client.ask(f"is it remembered? [[{warm}]]")
        assert "canary" in prompted(provider, warm)
        await oracle.give_workflow(session_id, [{"type": "llm"}, *memory])
        ack = await client.send(f"think first [[{held}]]")
        await asyncio.to_thread(provider.wait_for, held)
        for message_id in (gone["parent"], gone["id"]):
            await asyncio.to_thread(delete_by_rest, apart, person, session_id, message_id)
        assert await copied(session_id)
        gate.release()
        assert (await client.answer(ack["answer_id"]))["status"] == "complete"
        told = prompted(provider, held, 1)
        assert "canary" not in " ".join(told)
        assert f"is it remembered? [[{warm}]]" in told
        await oracle.check(session_id, client)


def delete_by_rest(server: Server, person: Person, session_id: str, message_id: str) -> None:
    url = f"{server.url}/api/v1/sessions/{session_id}/messages/{message_id}"
    assert httpx.delete(url, headers={"Authorization": f"Bearer {person.token}"}, timeout=10).status_code == 204


async def copied(session_id: str) -> int:
    """Whether Redis has the conversation as it was before anything was deleted."""
    try:
        return int(await redis.client().exists(keys.tail(UUID(session_id), 0)))
    finally:
        await redis.close()


async def test_an_edit_during_an_answer_lets_it_end_on_its_own_branch(
    servers: Servers, person: Person, provider: ScriptedProvider
) -> None:
    session_id, held, after = person.new_session(servers[0]), f"b{uuid4().hex[:10]}", scripted(provider)
    gate = Gate()
    provider.script(held, text("half "), wait(gate), text("whole"), ok())
    async with person.client(servers[0], session_id) as client, person.client(servers[1], session_id) as watcher:
        first = await client.send(f"a slip [[{held}]]")
        await watcher.shows(first["answer_id"], "half ")
        ack = await command(watcher, "edit", first["message_id"], text=f"mended [[{after}]]")
        gate.release()
        for one in (client, watcher):
            assert (await one.answer(first["answer_id"]))["content"] == "half whole"
            assert (await one.answer(ack["answer_id"]))["content"] == "done"
        await level(client, watcher)
        assert branch(client) == [f"mended [[{after}]]", "done"]
        assert "slip" not in " ".join(prompted(provider, after))
        await oracle.check(session_id, client, watcher)


# Repeats and crashes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["edit", "regenerate"])
async def test_a_repeat_after_a_lost_ack_makes_no_second_branch(
    servers: Servers, person: Person, provider: ScriptedProvider, kind: str
) -> None:
    session_id = person.new_session(servers[0])
    async with person.client(servers[0], session_id) as client, person.client(servers[1], session_id) as watcher:
        old = await client.ask("hello")
        target, more = (old["parent"], {"text": "mended"}) if kind == "edit" else (old["id"], {})
        await client.send_json({"type": f"message.{kind}", "id": "the-same", "message_id": target, **more})
        await client.cut()
        acks = [await command(watcher, kind, target, id="the-same", **more) for _ in range(2)]
        await move(client, servers[1], session_id)
        acks += await asyncio.gather(*(command(one, kind, target, id="the-same", **more) for one in (client, watcher)))
        assert all(ack == acks[0] for ack in acks)
        assert acks[0]["type"] == "ack"
        for one in (client, watcher):
            await one.answer(acks[0]["answer_id"])
        assert len(client.messages) == (4 if kind == "edit" else 3)
        other = await command(client, "send", None, id="the-same", text="something else")
        assert other["code"] == "id_conflict"
        await level(client, watcher)
        await oracle.check(session_id, client, watcher)


async def test_dying_between_the_commit_and_the_ack_of_an_edit_loses_and_doubles_nothing(
    spawn: Any, servers: Servers, person: Person, provider: ScriptedProvider, hit_file: Path
) -> None:
    own = spawn(env=settings(CHAT=SHORT_LEASES))
    session_id, name = person.new_session(own), scripted(provider)
    said = f"[[die:after-commit]] [[{name}]]"
    async with person.client(own, session_id) as client:
        old = await client.ask("a slip")
        await client.send_json({"type": "message.edit", "id": "e", "message_id": old["parent"], "text": said})
        await client.closed()
        assert hit_file.read_text() == "after-commit"
        await move(client, servers[1], session_id)
        ack = await command(client, "edit", old["parent"], id="e", text=said)
        row = await client.answer(ack["answer_id"], 30)
        assert (row["status"], row["content"], row["parent"]) == ("complete", "done", ack["message_id"])
        assert await command(client, "edit", old["parent"], id="e", text=said) == ack
        assert len(provider.exchanges(name)) == 1
        assert branch(client) == [said, "done"]
        assert len(await oracle.check(session_id, client)) == 4


async def test_a_resume_shows_what_was_shown_live(servers: Servers, person: Person) -> None:
    session_id = person.new_session(servers[0])
    away = person.client(servers[1], session_id)
    async with person.client(servers[0], session_id) as client:
        first = await client.ask("one")
        second = await client.ask("two")
        await away.connect()
        await level(client, away)
        await away.cut()
        await command(client, "delete", first["id"])
        await edited(client, second["parent"], "two, mended")
        await client.answer((await command(client, "regenerate", second["id"]))["answer_id"])
        await move(away, servers[1], session_id)
        async with person.client(servers[1], session_id) as late:
            await level(client, away, late)
            assert branch(late) == branch(client) == branch(away)
            assert not away.resets
            await oracle.check(session_id, client, away, late)
    await away.disconnect()


# Refusals ------------------------------------------------------------------------------------------------------------


async def test_what_is_being_written_can_be_neither_deleted_nor_regenerated(
    servers: Servers, person: Person, provider: ScriptedProvider
) -> None:
    session_id, held, gate = person.new_session(servers[0]), f"b{uuid4().hex[:10]}", Gate()
    provider.script(held, text("so far"), wait(gate), ok())
    async with person.client(servers[0], session_id) as client, person.client(servers[1], session_id) as watcher:
        ack = await client.send(f"hold [[{held}]]")
        await client.shows(ack["answer_id"], "so far")
        for kind, target in (("delete", "message_id"), ("delete", "answer_id"), ("regenerate", "answer_id")):
            refused = await command(watcher, kind, ack[target])
            assert refused["code"] == "still_running", (kind, target)
        gate.release()
        assert (await client.answer(ack["answer_id"]))["content"] == "so far"
        assert (await command(client, "delete", ack["answer_id"]))["type"] == "ack"


async def test_a_command_for_the_wrong_kind_of_message_says_so(servers: Servers, person: Person) -> None:
    session_id = person.new_session(servers[0])
    async with person.client(servers[0], session_id) as client:
        row = await client.ask("hello")
        refusals = [
            await command(client, "edit", row["id"], text="x"),
            await command(client, "regenerate", row["parent"]),
            await command(client, "send", None, text="x", parent=row["parent"]),
        ]
        assert [one["code"] for one in refusals] == ["invalid"] * 3
        assert (await command(client, "edit", row["parent"], text=" "))["code"] == "empty_text"
        await command(client, "delete", row["parent"])
        assert (await command(client, "regenerate", row["id"]))["code"] == "conflict"
        assert len(client.messages) == 2


async def test_another_persons_message_is_not_found(servers: Servers, person: Person, other: Person) -> None:
    theirs, mine = other.new_session(servers[0]), person.new_session(servers[1])
    async with other.client(servers[0], theirs) as foreign, person.client(servers[1], mine) as client:
        row = await foreign.ask("theirs")
        for target in (row["id"], row["parent"], str(uuid4())):
            for kind, more in (("edit", {"text": "x"}), ("regenerate", {}), ("delete", {})):
                assert (await command(client, kind, target, **more))["code"] == "not_found"
        assert (await command(client, "send", None, text="x", parent=row["id"]))["code"] == "not_found"
        assert not client.messages
        await oracle.check(theirs, foreign)


# Rows of before ------------------------------------------------------------------------------------------------------


async def test_conversations_of_before_become_one_branch(servers: Servers, person: Person) -> None:
    session_id = person.new_session(servers[0])
    async with person.client(servers[0], session_id) as client:
        for said in ("one", "two", "three"):
            await client.ask(said)
    empty = person.new_session(servers[0])

    def migrate() -> tuple[list[Any], list[Any], Any, Any]:
        rows = ChatHistory.objects.filter(session_id=session_id).order_by("order")
        with transaction.atomic():
            before = list(rows.values_list("id", "parent_id"))
            rows.filter(role="USER").update(parent=None)
            ChatSession.objects.filter(id=session_id).update(head_id=None)
            import_module("chat.migrations.0004_branches").link(apps, None)
            after = list(rows.values_list("id", "parent_id"))
            heads = [ChatSession.objects.get(id=one).head_id for one in (session_id, empty)]
            transaction.set_rollback(True)
        return before, after, *heads

    before, after, head, none = await database.run(migrate)
    assert after == before
    assert (head, none) == (before[-1][0], None)
