"""Budgets and the log, seen from outside: real servers, real sockets, and a provider that keeps its own count."""

import asyncio
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from chat import sessions, turns
from kernel import database
from llm import counters, prices, spend
from llm.models import Budget, BudgetCounter, InteractionLog, ModelPrice, Reservation
from tests.conftest import Person
from tests.support import oracle
from tests.support.client import Client
from tests.support.scripted_provider import Gate, ScriptedProvider, ok, status, text, wait
from tests.support.server import Server, rest

PARALLEL = 200


@pytest.fixture
def price(live_database: None) -> Iterator[ModelPrice]:
    """The scripted model's: it has one in these tests only."""
    moment = datetime.now(UTC) - timedelta(minutes=1)
    made = prices.set_price("openai", "scripted", input=Decimal("2.5"), output=Decimal("10.000001"), valid_from=moment)
    yield made
    made.delete()


async def set_budget(person: Person, kind: str, limit: float | Decimal, **more: Any) -> None:
    await database.run(
        Budget.objects.create, workspace=person.user.personal_workspace, kind=kind, limit=Decimal(limit), **more
    )


async def sockets(person: Person, servers: tuple[Server, Server], count: int) -> list[Client]:
    """Sockets at `count` new sessions, on both servers by turns."""
    opened = [(await database.run(sessions.create_session, person.caller)).id for _ in range(count)]
    clients = [person.client(servers[number % 2], str(each)) for number, each in enumerate(opened)]
    for start in range(0, count, 20):
        await asyncio.gather(*(client.connect() for client in clients[start : start + 20]))
    return clients


async def counted(person: Person) -> dict[str, tuple[Decimal, Decimal]]:
    rows = BudgetCounter.objects.filter(workspace=person.user.personal_workspace)
    return await database.run(lambda: {row.key: (row.used, row.reserved) for row in rows})


async def until(condition: Callable[[], Any], deadline: float = 15) -> None:
    end = time.monotonic() + deadline
    while not await database.run(condition):
        assert time.monotonic() < end, "waited in vain"
        await asyncio.sleep(0.05)


async def totals(person: Person) -> dict[str, Any]:
    now = datetime.now(UTC)
    rows = InteractionLog.objects.filter(workspace=person.user.personal_workspace)
    since, until_ = now - timedelta(days=1), now + timedelta(days=1)
    [whole] = await database.run(lambda: spend.spend(rows, since=since, until=until_))
    return whole


async def leave(clients: list[Client]) -> None:
    await asyncio.gather(*(client.disconnect() for client in clients))


async def test_two_hundred_messages_at_once_overshoot_neither_tokens_nor_money(
    servers: tuple[Server, Server], person: Person, provider: ScriptedProvider, price: ModelPrice
) -> None:
    gate = Gate()
    name = f"money-{person.user.pk}"
    marker = provider.script(name, text("one ", "two ", "three"), wait(gate), ok())
    await set_budget(person, "tokens_per_day", 60_000)
    await set_budget(person, "money_per_month", Decimal("0.55"))
    clients = await sockets(person, servers, PARALLEL)
    acks = await asyncio.gather(*(client.send(f"count {marker}") for client in clients))
    assert {ack["type"] for ack in acks} == {"ack"}
    refused = InteractionLog.objects.filter(
        workspace=person.user.personal_workspace, status="failed", error_category="budget_exceeded"
    )
    held = Reservation.objects.filter(workspace=person.user.personal_workspace, counter__key="tokens_per_day")
    await until(lambda: refused.count() + held.count() == PARALLEL, 60)
    before = await counted(person)
    assert before["tokens_per_day"][1] <= 60_000
    assert before["money_per_month"][1] <= Decimal("0.55")
    made = await database.run(held.count)
    assert 3 < made < 20, "the bound is that of the few who fit"
    # One more of the same size would not have fitted: nothing was refused that had room.
    each = [before[kind][1] / made for kind in ("tokens_per_day", "money_per_month")]
    assert before["tokens_per_day"][1] + each[0] > 60_000 or before["money_per_month"][1] + each[1] > Decimal("0.55")

    gate.release()
    rows = await asyncio.gather(
        *(client.answer(ack["answer_id"], 60) for client, ack in zip(clients, acks, strict=True))
    )
    answered = [row for row in rows if row["status"] == "complete"]
    assert len(answered) == made
    assert {row["error_code"] for row in rows if row["status"] == "failed"} == {"budget_exceeded"}
    exchanges = provider.exchanges(name)
    assert len(exchanges) == made
    assert {exchange.body["max_completion_tokens"] for exchange in exchanges} == {4096}, (
        "what is held back is what is asked for"
    )

    asked, said = 11 * made, sum(exchange.tokens_sent for exchange in exchanges)
    whole = await totals(person)
    assert (whole["calls"], whole["input_tokens"], whole["output_tokens"]) == (made, asked, said)
    cost = (asked * Decimal("2.5") + said * Decimal("10.000001")) / 10**6
    # A call's cost is exact to a billionth.
    assert whole["cost"] == made * ((11 * Decimal("2.5") + 3 * Decimal("10.000001")) / 10**6).quantize(Decimal("1E-9"))
    assert abs(whole["cost"] - cost) < Decimal("1E-9") * made
    assert await counted(person) == {"tokens_per_day": (asked + said, 0), "money_per_month": (whole["cost"], 0)}
    assert not await database.run(Reservation.objects.filter(workspace=person.user.personal_workspace).exists)
    told = rest(servers[0], person.token, "GET", "/budgets/use")
    assert {use["kind"]: Decimal(use["used"]) for use in told}["tokens_per_day"] == asked + said
    await leave(clients)


async def test_two_hundred_messages_at_once_are_acked_as_often_as_a_minute_has_room(
    servers: tuple[Server, Server], person: Person
) -> None:
    await set_budget(person, "messages_per_minute", 25)
    clients = await sockets(person, servers, 40)
    minute = datetime.now(UTC).minute
    acks = await asyncio.gather(*(client.send(f"hello {number}") for client in clients for number in range(5)))
    errors = [ack for ack in acks if ack["type"] == "error"]
    if datetime.now(UTC).minute == minute:
        assert len(errors) == 175
    windows = BudgetCounter.objects.filter(workspace=person.user.personal_workspace)
    assert all(row.used <= 25 for row in await database.run(list, windows))
    assert {error["code"] for error in errors} == {"budget_exceeded"}
    assert all(0 < error["retry_after"] <= 60 for error in errors)
    await leave(clients)


async def test_a_repeat_is_not_counted_twice(servers: tuple[Server, Server], person: Person) -> None:
    await set_budget(person, "messages_per_minute", 1)
    [client] = await sockets(person, servers, 1)
    first = await client.send("hello", id="same")
    again = await client.send("hello", id="same")
    assert again["message_id"] == first["message_id"]
    other = await client.send("hello", id="other")
    assert (other["code"], other["type"]) == ("budget_exceeded", "error")
    await client.answer(first["answer_id"])
    await leave([client])


async def test_stops_and_failures_give_back_what_they_held(
    servers: tuple[Server, Server], person: Person, provider: ScriptedProvider, price: ModelPrice
) -> None:
    await set_budget(person, "concurrent_runs", 1)
    await set_budget(person, "tokens_per_day", 1_000_000)
    gate = Gate()
    slow = provider.script(f"slow-{person.user.pk}", text("some ", "text "), wait(gate), ok())
    bad = provider.script(f"bad-{person.user.pk}", status(400))
    first, second = await sockets(person, servers, 2)
    ack = await first.send(f"go {slow}")
    await first.shows(ack["answer_id"], "text")
    refused = await second.send("me too")
    assert (refused["code"], refused["retry_after"]) == ("budget_exceeded", 2)
    await first.stop(ack["answer_id"])
    assert (await first.answer(ack["answer_id"]))["status"] == "stopped"
    used = (await counted(person))["tokens_per_day"][0]
    stopped = await oracle.log_of(ack["answer_id"])
    assert used == stopped["input_tokens"] + stopped["output_tokens"] > 0

    assert (await second.ask(f"go {bad}"))["status"] == "failed"
    assert await counted(person) == {"concurrent_runs": (0, 0), "tokens_per_day": (used, 0)}
    assert (await second.ask("and now?"))["status"] == "complete"
    for client in (first, second):
        await oracle.check(client.url.rstrip("/").rpartition("/")[2], client)
    gate.release()
    await leave([first, second])


async def test_what_a_killed_process_held_is_given_back_by_its_successor(
    spawn: Callable[..., Server], person: Person, provider: ScriptedProvider, price: ModelPrice
) -> None:
    await set_budget(person, "concurrent_runs", 2)
    await set_budget(person, "tokens_per_day", 1_000_000)
    shown_gate, silent_gate = Gate(), Gate()
    shown = provider.script(f"shown-{person.user.pk}", text("some ", "text "), wait(shown_gate), ok())
    silent = f"silent-{person.user.pk}"
    provider.script_tries(silent, [wait(silent_gate)], [text("anew"), ok()])
    first, second = spawn(), spawn()
    clients = await sockets(person, (first, first), 2)
    ack = await clients[0].send(f"go {shown}")
    anew = await clients[1].send(f"go [[{silent}]]")
    await clients[0].shows(ack["answer_id"], "text")
    assert await asyncio.to_thread(silent_gate.reached.wait, 10)
    held = await counted(person)
    assert held["concurrent_runs"] == (0, 2)
    assert held["tokens_per_day"][1] > 8192

    first.kill()
    moved = [person.client(second, client.url.rstrip("/").rpartition("/")[2]) for client in clients]
    for client in moved:
        await client.connect()
    assert (await moved[0].answer(ack["answer_id"]))["status"] == "interrupted"
    assert (await moved[1].answer(anew["answer_id"]))["status"] == "complete"
    after = await counted(person)
    assert after["concurrent_runs"] == (0, 0)
    # Nobody knows what the dead process's calls came to: they count with what was held for them.
    assert after["tokens_per_day"] == (held["tokens_per_day"][1] + 11 + 1, 0)
    rows = await database.run(
        lambda: list(
            InteractionLog.objects.filter(run_id=run_of(anew["answer_id"]))
            .order_by("call")
            .values_list("status", "model_name", "attempt")
        )
    )
    assert rows == [("interrupted", "scripted", 1), ("ok", "scripted", 2)]
    for gate in (shown_gate, silent_gate):
        gate.release()
    for client in moved:
        await oracle.check(client.url.rstrip("/").rpartition("/")[2], client)
    await leave([*clients, *moved])


def run_of(answer_id: str) -> UUID:
    from chat.models import Run

    return Run.objects.values_list("id", flat=True).get(message_id=answer_id)


async def test_the_end_of_an_answer_whose_session_was_deleted_is_still_accounted_for(
    servers: tuple[Server, Server], person: Person, provider: ScriptedProvider
) -> None:
    await set_budget(person, "concurrent_runs", 1)
    gate = Gate()
    marker = provider.script(f"orphan-{person.user.pk}", text("a"), wait(gate), ok())
    [client] = await sockets(person, servers, 1)
    ack = await client.send(f"go {marker}")
    await client.shows(ack["answer_id"], "a")
    run_id = await database.run(run_of, ack["answer_id"])
    session_id = client.url.rstrip("/").rpartition("/")[2]
    await client.disconnect()
    from chat.models import ChatSession

    await database.run(ChatSession.objects.filter(id=session_id).delete)
    gate.release()
    await until(lambda: not InteractionLog.objects.filter(run_id=run_id, status="started").exists())
    assert (await counted(person))["concurrent_runs"] == (0, 0)


async def test_what_was_lost_with_its_session_is_given_back_a_day_later(person: Person) -> None:
    await set_budget(person, "concurrent_runs", 1)
    session = await database.run(sessions.create_session, person.caller)
    await database.run(turns.accept, person.caller, session.id, client_id="m", text="hello", owner="nobody")
    await database.run(session.delete)
    rows = Reservation.objects.filter(workspace=person.user.personal_workspace)
    await database.run(counters.prune)
    assert await database.run(rows.count) == 1
    await database.run(lambda: rows.update(created_at=datetime.now(UTC) - timedelta(days=1, minutes=1)))
    await database.run(counters.prune)
    assert await counted(person) == {"concurrent_runs": (0, 0)}
