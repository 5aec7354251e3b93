"""Chats whose memory a worker keeps up, seen from outside: a server, a worker, and what the model is sent."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from django.db.models.functions import Now

from chat.models import ChatHistory
from kernel import database
from llm import prices
from llm.models import Budget, BudgetCounter, InteractionLog
from memory.models import MemoryJob, Summary
from tests.conftest import Person
from tests.support.client import Client
from tests.support.scripted_provider import Gate, ScriptedProvider, ok, text, until, wait
from tests.support.server import Server, rest
from tests.support.stage import eventually, no_traceback, settings
from tests.support.worker import Worker

FACT = "My sister Ottilie keeps a parrot called Zanzibar."
NOTES = "The user's sister Ottilie has the parrot Zanzibar."
#: For a worker to take a job, and to do it.
SOON = 40.0


@dataclass
class Stage:
    """One model talks, another one writes the notes."""

    server: Server
    worker: Worker
    talks: ScriptedProvider
    writes: ScriptedProvider

    def revive(self) -> None:
        """A worker that lives."""
        if self.worker.process is None or self.worker.process.poll() is not None:
            self.worker.start()


@pytest.fixture(scope="module")
def started(live_database: None, server_env: dict[str, str]) -> Iterator[Stage]:
    def model(name: str, provider: ScriptedProvider) -> dict[str, Any]:
        options = {"base_url": provider.base_url, "api_key": "sk-test-not-a-key"}
        return {"PROVIDER": "openai", "MODEL": name, "OPTIONS": options, "MAX_RETRIES": 0, "MAX_OUTPUT_TOKENS": 500}

    talking = ScriptedProvider(otherwise=[text("I ", "see."), ok()])
    with talking as talks, ScriptedProvider(otherwise=[text(NOTES), ok()]) as writes:
        models = {"talker": model("live-talker", talks), "writer": model("live-writer", writes)}
        env = server_env | settings(LLM={"MODELS": models, "DEFAULT_MODEL": "talker"})
        with Server(env) as server, Worker(env) as worker:
            yield Stage(server, worker, talks, writes)
            no_traceback(server)


class Chat(Client):
    """A person at a session; each message has this chat's marker."""

    stage: Stage
    session_id: str
    marker: str

    @property
    def name(self) -> str:
        return self.marker.strip("[]")

    async def says(self, words: str) -> dict[str, Any]:
        row = await self.ask(f"{words} {self.marker}")
        assert row["status"] == "complete", row
        return row

    async def command(self, kind: str, **fields: Any) -> dict[str, Any]:
        key, start = str(uuid4()), len(self.frames)
        await self.send_json({"type": kind, "id": key, **fields})
        ack = await self.wait_frame(lambda frame: frame.get("id") == key, start=start)
        assert ack["type"] == "ack", ack
        return ack

    def prompt(self) -> list[dict[str, Any]]:
        """What the model that talks was sent last."""
        return self.stage.talks.exchanges(self.name)[-1].messages

    def asked_to_note(self) -> list[str]:
        return [str(exchange.body) for exchange in self.stage.writes.exchanges(self.name)]

    async def summaries(self) -> list[str]:
        rows = Summary.objects.filter(session_id=self.session_id).order_by("version")
        return await database.run(lambda: [row.text for row in rows])

    async def summarised(self, text: str = NOTES) -> None:
        """Wait until the newest summary is that one."""
        rows = Summary.objects.filter(session_id=self.session_id).order_by("-version").values_list("text", flat=True)
        await eventually(lambda: rows.first() == text, deadline=SOON)
        await self.job_is(open=False)

    async def job_is(self, **state: Any) -> None:
        jobs = MemoryJob.objects.filter(session_id=self.session_id, **state)
        await eventually(jobs.exists, deadline=SOON)


def begin(stage: Stage, person: Person, kind: str, **options: Any) -> Chat:
    stage.revive()
    memory = {"type": "memory", "kind": kind, "options": options}
    definition = {"schema": 1, "steps": [memory, {"type": "llm"}]}
    body = {"name": kind, "workflow_definition": definition, "activate": True}
    rest(stage.server, person.token, "POST", "/workflows", json=body)
    session_id = person.new_session(stage.server, workflow=kind)
    client = Chat(stage.server.socket_url(session_id), token=person.token)
    client.stage, client.session_id, client.marker = stage, session_id, f"[[live-{person.user.pk}]]"
    return client


@pytest.fixture
async def chat(started: Stage, person: Person) -> Any:
    async with begin(started, person, "summary", model="writer", tail=2, every=2) as client:
        yield client


def said(prompt: list[dict[str, Any]]) -> str:
    return "\n".join(f"{each['role']}: {each['content']}" for each in prompt)


def whose(person: Person) -> dict[str, Any]:
    return {"workspace": person.user.personal_workspace}


@pytest.fixture
def dear_notes(live_database: None) -> Iterator[None]:
    """A word of talk costs next to nothing, a summary more than the budgets here have."""
    moment = datetime.now(UTC) - timedelta(minutes=1)
    made = [
        prices.set_price("openai", model, input=Decimal(price), output=Decimal(price), valid_from=moment)
        for model, price in (("live-talker", "0.01"), ("live-writer", "100000"))
    ]
    yield
    for each in made:
        each.delete()


async def expire(chat: Chat) -> None:
    """Two minutes pass for the job of a worker that is dead."""
    jobs = MemoryJob.objects.filter(session_id=chat.session_id)
    await database.run(lambda: jobs.update(lease_expires_at=Now()))


async def test_the_next_prompt_has_the_summary_and_what_was_said_after_it(chat: Chat, person: Person) -> None:
    await database.run(lambda: Budget.objects.create(kind="tokens_per_day", limit=10**6, **whose(person)))
    await chat.says(FACT)
    await chat.says("She lives in Bremen.")
    await chat.summarised()
    await chat.says("What is it called?")
    system, *rest_of_it = chat.prompt()
    assert system["role"] == "system"
    assert NOTES in system["content"]
    assert [each["role"] for each in rest_of_it] == ["user", "assistant", "user"]
    assert "Bremen" in rest_of_it[0]["content"]
    assert FACT not in said(chat.prompt())
    # Its call is accounted for as any other.
    await chat.job_is(open=False)
    logged = InteractionLog.objects.filter(session_id=chat.session_id, status="ok")
    rows = await database.run(lambda: list(logged))
    exchanges = [*chat.stage.writes.exchanges(chat.name), *chat.stage.talks.exchanges(chat.name)]
    assert len(rows) == len(exchanges)
    assert {row.model_name for row in rows} == {"live-talker", "live-writer"}
    assert sum(row.output_tokens for row in rows) == sum(each.tokens_sent for each in exchanges)
    counters = BudgetCounter.objects.filter(key="tokens_per_day", **whose(person))
    used = await database.run(lambda: counters.get().used)
    assert used == sum(row.input_tokens + row.output_tokens for row in rows)


async def test_a_summary_whose_worker_is_killed_is_made_once_by_the_next(chat: Chat) -> None:
    gate = Gate()
    chat.stage.writes.script_tries(chat.name, [wait(gate), text("late"), ok()], [text("Once."), ok()])
    await chat.says(FACT)
    await chat.says("She lives in Bremen.")
    assert await until(gate.reached, SOON)
    await asyncio.to_thread(chat.stage.worker.kill)
    await chat.says("Nobody waits for notes.")
    assert await chat.summaries() == []
    assert [each["role"] for each in chat.prompt()] == ["user", "assistant"] * 2 + ["user"]
    await expire(chat)
    await asyncio.to_thread(chat.stage.worker.start)
    await chat.says("And now?")
    await chat.summarised("Once.")
    gate.release()
    assert await chat.summaries() == ["Once."]
    assert len(chat.asked_to_note()) == 2
    written = InteractionLog.objects.filter(session_id=chat.session_id, model_name="live-writer", status="ok")
    assert await database.run(written.count) == 1
    await chat.says("Well?")
    assert "Once." in chat.prompt()[0]["content"]


@pytest.mark.parametrize("change", ["message.delete", "message.edit"])
async def test_what_is_taken_back_is_in_no_later_prompt_and_the_summary_is_made_again_without_it(
    chat: Chat, change: str
) -> None:
    gate = Gate()
    # The summary as it was, and the one that is made again.
    chat.stage.writes.script_tries(chat.name, [text(NOTES), ok()], [wait(gate), text("About a sister."), ok()])
    await chat.says(FACT)
    await chat.says("She lives in Bremen.")
    await chat.summarised()
    first = await database.run(ChatHistory.objects.get, session_id=chat.session_id, order=1)
    if change == "message.delete":
        await chat.command(change, message_id=str(first.id))
    else:
        ack = await chat.command(change, message_id=str(first.id), text=f"I have a sister. {chat.marker}")
        await chat.answer(ack["answer_id"])
        assert "Zanzibar" not in said(chat.prompt())
    await chat.says("Do you remember?")
    assert "Zanzibar" not in said(chat.prompt())
    assert await until(gate.reached, SOON)
    await chat.says("Still nothing?")
    assert "Zanzibar" not in said(chat.prompt())
    gate.release()
    await chat.summarised("About a sister.")
    assert all("Zanzibar" not in body for body in chat.asked_to_note()[1:])
    await chat.says("And now?")
    assert "About a sister." in chat.prompt()[0]["content"]
    assert "Zanzibar" not in said(chat.prompt())


async def test_a_budget_that_has_no_room_for_notes_leaves_the_chat_with_the_last_ones(
    chat: Chat, person: Person, dear_notes: None
) -> None:
    await chat.says(FACT)
    await chat.says("She lives in Bremen.")
    await chat.summarised()
    before = len(chat.asked_to_note())
    await database.run(lambda: Budget.objects.create(kind="money_per_month", limit=5, **whose(person)))
    await chat.says("He talks.")
    await chat.says("He sings.")
    await chat.job_is(error_code="budget_exceeded")
    await chat.says("What is it called?")
    assert NOTES in chat.prompt()[0]["content"]
    assert "He talks." in said(chat.prompt())
    assert "He sings." in said(chat.prompt())
    assert len(chat.asked_to_note()) == before
    assert await chat.summaries() == [NOTES]
    refused = InteractionLog.objects.filter(session_id=chat.session_id, status="failed")
    assert {row.error_category for row in await database.run(list, refused)} == {"budget_exceeded"}


async def test_without_any_notes_a_spent_budget_leaves_the_newest_messages(
    chat: Chat, person: Person, dear_notes: None
) -> None:
    await database.run(lambda: Budget.objects.create(kind="money_per_month", limit=5, **whose(person)))
    await chat.says(FACT)
    await chat.says("She lives in Bremen.")
    await chat.job_is(error_code="budget_exceeded")
    await chat.says("What is it called?")
    assert [each["role"] for each in chat.prompt()] == ["user", "assistant"] * 2 + ["user"]
    assert FACT in said(chat.prompt())
    assert chat.asked_to_note() == []


async def test_an_old_message_is_recalled_from_its_branch_alone_until_it_is_deleted(
    started: Stage, person: Person
) -> None:
    question = "What is the parrot of my sister Ottilie called?"
    async with begin(started, person, "recall", tail=2, k=3) as chat:
        await chat.says(FACT)
        for number in range(3):
            await chat.says(f"The parrot of my sister Ottilie has {number} eggs.")
        await chat.job_is(open=False)
        await chat.says(question)
        assert FACT in chat.prompt()[0]["content"]
        assert "has 1 eggs" in chat.prompt()[0]["content"]
        # An edit leaves what came before it, and nothing of what followed.
        edited = await database.run(ChatHistory.objects.get, session_id=chat.session_id, order=3)
        ack = await chat.command("message.edit", message_id=str(edited.id), text=f"What about cats? {chat.marker}")
        await chat.answer(ack["answer_id"])
        await chat.says("And dogs?")
        for _ in range(2):  # before and after a worker has looked at the new branch
            await chat.says(question)
            assert FACT in said(chat.prompt())
            assert "eggs" not in said(chat.prompt())
            await chat.job_is(open=False)
        first = await database.run(ChatHistory.objects.get, session_id=chat.session_id, order=1)
        await chat.command("message.delete", message_id=str(first.id))
        await chat.says(question)
        assert "Zanzibar" not in said(chat.prompt())
