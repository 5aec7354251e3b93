"""Answers that are given again, in chats over a real server: seen by people, by the log and by the budgets."""

from decimal import Decimal
from typing import Any

from chat.models import ChatSession
from kernel import database
from llm.models import Budget, BudgetCounter, CachedAnswer, CallStatus, InteractionLog, Workflow
from tests.conftest import Person
from tests.support import oracle
from tests.support.scripted_provider import Gate, ScriptedProvider, ok, text, wait
from tests.support.server import Server

Pair = tuple[Server, Server]

LONG = "The warranty of the coffee machine lasts twenty-four months from the day on which it was bought."
QUESTION = "How long is the warranty of the coffee machine?"


def workflow(person: Person, marker: str, *more: dict[str, Any], version: int = 1, **cache: Any) -> str:
    """A stored workflow that answers from its cache; its name."""
    name = marker.strip("[]")
    Workflow.objects.filter(name=name, workspace=person.user.personal_workspace).update(is_active=False)
    Workflow.objects.create(
        workspace=person.user.personal_workspace,
        name=name,
        version=version,
        is_active=True,
        workflow_definition={
            "schema": 1,
            "steps": [{"type": "prompt", "template": f"{marker} {{question}}"}, {"type": "llm"}, *more],
            "cache": {"kind": "exact", **cache},
        },
    )
    return name


def begun(server: Server, person: Person, name: str) -> str:
    """A new conversation that follows the workflow of this name."""
    session_id = person.new_session(server)
    row = Workflow.objects.get(workspace=person.user.personal_workspace, name=name, is_active=True)
    ChatSession.objects.filter(id=session_id).update(workflow=row)
    return session_id


async def asked(server: Server, person: Person, name: str, question: str = QUESTION) -> dict[str, Any]:
    """Ask in a new conversation: the answer's row with its `log` and the number of pieces in which it came."""
    session_id = await database.run(begun, server, person, name)
    async with person.client(server, session_id) as client:
        row = await client.ask(question)
        pieces = sum(frame["type"] == "delta" for frame in client.frames)
        if row["status"] == "complete":
            await oracle.check(session_id, client)
    return row | {"pieces": pieces, "log": await oracle.log_of(row["id"])}


def used(person: Person) -> list[Decimal]:
    rows = BudgetCounter.objects.filter(workspace=person.user.personal_workspace, key__startswith="tokens_per_day")
    return [amount for row in rows for amount in (row.used, row.reserved)]


async def test_an_answer_that_is_given_again_streams_costs_nothing_and_asks_nobody(
    servers: Pair, person: Person, provider: ScriptedProvider
) -> None:
    marker = provider.script("c-exact", text(LONG), ok())
    name = await database.run(workflow, person, marker)
    await database.run(
        Budget.objects.create, workspace=person.user.personal_workspace, kind="tokens_per_day", limit=1_000_000
    )
    first = await asked(servers[0], person, name)
    before = await database.run(used, person)
    again = await asked(servers[1], person, name)
    assert len(provider.exchanges("c-exact")) == 1
    assert first["content"] == again["content"] == LONG
    assert again["status"] == "complete"
    assert again["pieces"] >= 1
    assert first["log"]["status"] == "ok"
    log = again["log"]
    assert (log["status"], log["cost"], log["input_tokens"], log["output_tokens"]) == ("cached", 0, 0, 0)
    assert (log["model_name"], log["response_text"]) == ("scripted", LONG)
    assert log["metadata"] == {"saved_input_tokens": 11, "saved_output_tokens": 1}
    assert before[0] > 0
    assert await database.run(used, person) == before


async def test_someone_elses_workspace_a_new_version_and_a_history_are_asked_anew(
    servers: Pair, person: Person, make: Any, provider: ScriptedProvider
) -> None:
    marker = provider.script("c-other", text("Yes."), ok())
    name = await database.run(workflow, person, marker)
    await asked(servers[0], person, name)
    other = await database.run(make)
    await database.run(workflow, other, marker)
    assert (await asked(servers[0], other, name))["log"]["status"] == "ok"
    await database.run(lambda: workflow(person, marker, version=2))
    assert (await asked(servers[0], person, name))["log"]["status"] == "ok"
    assert (await asked(servers[1], person, name))["log"]["status"] == "cached"
    assert len(provider.exchanges("c-other")) == 3


async def test_a_stopped_answer_is_not_given_to_anyone(
    servers: Pair, person: Person, provider: ScriptedProvider
) -> None:
    gate = Gate()
    marker = provider.script_tries("c-stop", [text("Half of "), wait(gate), ok()], [text("All of it."), ok()])
    name = await database.run(workflow, person, marker)
    session_id = await database.run(begun, servers[0], person, name)
    async with person.client(servers[0], session_id) as client:
        ack = await client.send(QUESTION)
        await client.shows(ack["answer_id"], "Half of")
        await client.stop(ack["answer_id"])
        assert (await client.answer(ack["answer_id"]))["status"] == "stopped"
    gate.release()
    assert (await asked(servers[0], person, name))["content"] == "All of it."


async def test_an_answer_that_a_parser_refuses_is_not_given_again(
    servers: Pair, person: Person, provider: ScriptedProvider
) -> None:
    marker = provider.script_tries("c-parse", [text("no JSON"), ok()], [text('{"a": 1}'), ok()])
    name = await database.run(workflow, person, marker, {"type": "parser", "parser": "json"})
    assert (await asked(servers[0], person, name))["status"] == "failed"
    assert not await database.run(CachedAnswer.objects.filter(workspace=person.user.personal_workspace).exists)
    assert (await asked(servers[0], person, name))["status"] == "complete"
    assert (await asked(servers[0], person, name))["log"]["status"] == "cached"


async def test_a_question_that_means_the_same_is_given_the_answer(
    servers: Pair, person: Person, provider: ScriptedProvider
) -> None:
    marker = provider.script("c-near", text(LONG), ok())
    name = await database.run(lambda: workflow(person, marker, kind="semantic", threshold=0.9))
    await asked(servers[0], person, name)
    near = await asked(servers[1], person, name, "How long is the warranty of the coffee machine, please?")
    far = await asked(servers[1], person, name, "Who paints the garden fence?")
    assert (near["log"]["status"], near["content"]) == ("cached", LONG)
    assert far["log"]["status"] == "ok"


async def test_two_calls_of_one_run_are_each_given_again(
    servers: Pair, person: Person, provider: ScriptedProvider
) -> None:
    marker = provider.script("c-two", text("First."), ok())
    second = provider.script("c-two-b", text("Second."), ok())
    more = ({"type": "prompt", "template": f"{second} {{question}}"}, {"type": "llm"})
    name = await database.run(workflow, person, marker, *more)
    for _ in range(2):
        assert (await asked(servers[0], person, name))["content"] == "Second."
    assert (len(provider.exchanges("c-two")), len(provider.exchanges("c-two-b"))) == (1, 1)

    def statuses() -> list[str]:
        rows = InteractionLog.objects.filter(workspace=person.user.personal_workspace).order_by("id")
        return list(rows.values_list("status", flat=True))

    assert await database.run(statuses) == [CallStatus.OK] * 2 + [CallStatus.CACHED] * 2
