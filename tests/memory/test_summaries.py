"""Summaries and recall from end to end: jobs run in this process, the model is a scripted provider over HTTP."""

import asyncio

import pytest
from django.db.models.functions import Now

from accounts.access import Caller, caller_of
from chat import answers, branches, turns
from chat.models import ChatHistory, ChatSession
from kernel import database, redis
from llm import aliases, health, versions
from llm.events import Text
from llm.models import Workflow
from llm.state import RunContext
from llm.tokens import TokenCounter
from llm.workflows import WorkflowInput, WorkflowState, compile_workflow, stream
from memory import jobs, keeping
from memory.jobs import needs_of
from memory.models import MemoryJob, MessageVector, Summary
from tests.memory.conversations import Conversation
from tests.support.scripted_embeddings import DIMENSION, OpenAiEmbeddings, texts
from tests.support.scripted_embeddings import vectors as vectors_of
from tests.support.scripted_provider import Gate, ScriptedProvider, ok, status, text, until, wait

pytestmark = pytest.mark.django_db(transaction=True)

FACT = "My sister Ottilie keeps a parrot called Zanzibar."


@pytest.fixture(autouse=True)
async def _connections_are_closed():
    health.forget()
    yield
    await aliases.close()
    await redis.close()


@pytest.fixture
def provider(provider: ScriptedProvider, settings):
    """A small model that speaks what tests script."""
    place = {"base_url": provider.base_url, "api_key": "sk-test"}
    alias = {"PROVIDER": "openai", "MODEL": "scripted", "OPTIONS": place, "MAX_RETRIES": 0, "CONTEXT_TOKENS": 1200}
    settings.DJANGO_CHAIN = settings.DJANGO_CHAIN | {"LLM": {"MODELS": {"small": alias}, "DEFAULT_MODEL": "small"}}
    yield provider
    provider.forget()


def definition(kind: str, **options) -> list[dict]:
    return [{"type": "memory", "kind": kind, "options": options}, {"type": "llm"}]


async def want(talk: Conversation, kind: str, **options) -> None:
    needs = needs_of(definition(kind, **options))
    await database.run(jobs.want, talk.session_id, talk.workspace_id, needs)


async def keep_up(talk: Conversation, kind: str, **options) -> None:
    await want(talk, kind, **options)
    await keeping.work(talk.session_id)


async def recalled(talk: Conversation, kind: str, question: str = "next?", store: str = "postgres", **options):
    inputs = WorkflowInput(talk.workspace_id, None, talk.session_id, question, before_order=talk.next_order)
    state = WorkflowState.begin(inputs, RunContext.unlogged(talk.workspace_id))
    (step,) = compile_workflow([{"type": "memory", "kind": kind, "store": store, "options": options}]).steps
    assert [event async for event in step.run(state)] == []
    return state.history


def summaries(talk: Conversation) -> list[Summary]:
    return list(Summary.objects.filter(session_id=talk.session_id).order_by("version"))


async def caller(talk: Conversation) -> Caller:
    return await database.run(
        lambda: caller_of(ChatSession.objects.select_related("user").get(id=talk.session_id).user)
    )


async def long_talk(turns: int) -> Conversation:
    talk = await Conversation.begin()
    for number in range(turns):
        await talk.say(
            FACT if number == 1 else f"[[notes]] Tell me of number {number}.", f"It is number {number}, as said."
        )
    return talk


async def test_three_hundred_messages_fit_a_small_model_that_still_knows_a_fact_from_message_three(provider):
    talk = await long_talk(150)
    provider.script("notes", text("Sister Ottilie has the parrot Zanzibar."), ok())
    await keep_up(talk, "summary_buffer", max_tokens=300)
    await keep_up(talk, "recall", tail=4)
    question = "What is the parrot of my sister Ottilie called?"
    for kind, options in (("summary_buffer", {"max_tokens": 300}), ("recall", {"tail": 4})):
        inputs = WorkflowInput(talk.workspace_id, None, talk.session_id, question, before_order=talk.next_order)
        run = RunContext.unlogged(talk.workspace_id)
        events = [event async for event in stream(definition(kind, **options), inputs, run=run)]
        assert any(isinstance(event, Text) for event in events)
        sent = provider.exchanges()[-1].messages
        assert "Zanzibar" in str(sent[:-1])
        assert "window" not in str(run.trace)
        assert len(str(sent)) < 1200 * 4


async def test_deleting_a_message_takes_its_summary_and_vector_along_and_they_are_made_again_without_it(provider):
    talk = await long_talk(12)
    provider.script("notes", text("A summary."), ok())
    await keep_up(talk, "summary", tail=2, every=2)
    await keep_up(talk, "recall")
    assert await database.run(summaries, talk)
    secret = await database.run(lambda: ChatHistory.objects.get(session_id=talk.session_id, order=3))
    await database.run(branches.delete, await caller(talk), talk.session_id, secret.id)
    assert not await database.run(summaries, talk)
    assert not await database.run(MessageVector.objects.filter(message_id=secret.id).exists)
    asked = len(provider.exchanges())
    await keep_up(talk, "summary", tail=2, every=2)
    assert await database.run(summaries, talk)
    assert len(provider.exchanges()) > asked
    assert all("Zanzibar" not in str(exchange.body) for exchange in provider.exchanges()[asked:])
    assert "Zanzibar" not in str(await recalled(talk, "recall", "What is Ottilie's parrot called?", tail=2))


async def test_a_summary_of_a_message_that_is_deleted_meanwhile_is_not_kept(provider):
    talk = await long_talk(6)
    gate = Gate()
    provider.script_tries("notes", [wait(gate), text("Zanzibar."), ok()], [text("Clean."), ok()])
    await want(talk, "summary", tail=2, every=2)
    working = asyncio.create_task(keeping.work(talk.session_id))
    assert await until(gate.reached)
    secret = await database.run(lambda: ChatHistory.objects.get(session_id=talk.session_id, order=3))
    await database.run(branches.delete, await caller(talk), talk.session_id, secret.id)
    gate.release()
    await working
    assert [each.text for each in await database.run(summaries, talk)] == ["Clean."]


async def test_a_provider_that_is_down_leaves_the_tail_and_the_job_waits(provider):
    talk = await long_talk(6)
    provider.script("notes", status(503))
    await keep_up(talk, "summary", tail=2, every=2)
    job = await database.run(MemoryJob.objects.get, session_id=talk.session_id)
    assert job.open
    assert job.error_code
    assert not job.owner
    history = await recalled(talk, "summary", tail=2, every=2)
    assert [each.type for each in history][:1] == ["human"]
    assert history[-1].text.startswith("It is number 5")


async def test_two_workers_do_a_job_once_and_a_dead_ones_is_done_again_without_duplicates(provider):
    talk = await long_talk(6)
    gate = Gate()
    provider.script_tries("notes", [wait(gate), text("late"), ok()], [text("once"), ok()])
    await want(talk, "summary", tail=2, every=2)
    dead = asyncio.create_task(keeping.work(talk.session_id))
    assert await until(gate.reached)
    await keeping.work(talk.session_id)  # the claim is the other's
    assert len(provider.exchanges()) == 1
    await database.run(lambda: MemoryJob.objects.filter(session_id=talk.session_id).update(lease_expires_at=Now()))
    await keeping.work(talk.session_id)
    gate.release()
    await dead
    assert [each.text for each in await database.run(summaries, talk)] == ["once"]


@pytest.mark.parametrize("store", ["postgres", "redis"])
@pytest.mark.parametrize("kind", ["summary", "summary_buffer", "recall"])
async def test_every_kind_opens_with_a_note_and_never_shows_a_message_twice(provider, redis_url, store, kind):
    talk = await long_talk(12)
    provider.script("notes", text("Ottilie has a parrot."), ok())
    options = {"summary": {"tail": 2, "every": 2}, "summary_buffer": {"max_tokens": 120}, "recall": {"tail": 4}}[kind]
    await keep_up(talk, kind, **options)
    history = await recalled(talk, kind, "Which parrot has my sister Ottilie?", store, **options)
    assert [each.type for each in history[:2]] == ["system", "human"]
    assert "parrot" in history[0].text
    assert "no instructions" in history[0].text
    assert history[-1].text.startswith("It is number 11")
    assert not any(each.text in history[0].text for each in history[1:])


async def test_messages_full_of_markup_are_summarised_within_a_small_window(provider):
    talk = await Conversation.begin()
    for number in range(6):
        await talk.say(f"[[notes]] {number}", "</" * 400 + "[[notes]]")
    notes = "[[notes]] " + " ".join(f"Note {number} is kept." for number in range(40))
    provider.script("notes", text(notes), ok())
    await keep_up(talk, "summary", tail=2, every=2)
    assert {each.text for each in await database.run(summaries, talk)} == {notes}
    job = await database.run(MemoryJob.objects.get, session_id=talk.session_id)
    assert not job.open


@pytest.mark.parametrize("strict", ["inner", "outer"])
async def test_the_memory_of_a_workflow_within_another_is_kept_up(provider, strict):
    log = {"inner": ("full", "none"), "outer": ("none", "full")}[strict]
    within = {"steps": definition("summary", tail=2, every=2), "log_content": log[1]}
    outer = {"steps": [{"type": "workflow", "name": "inner"}], "log_content": log[0]}
    talk = await long_talk(6)
    provider.script("notes", text("Inside."), ok())

    def store() -> Workflow:
        for name, what in (("inner", within), ("outer", outer)):
            row = versions.create(
                Workflow, talk.workspace_id, name, user_id=None, activate=True, workflow_definition=what
            )
        ChatSession.objects.filter(id=talk.session_id).update(workflow=row)
        return row

    await database.run(store)
    who = await caller(talk)
    accepted = await database.run(turns.accept, who, talk.session_id, client_id="c", text="[[notes]] And?", owner="me")
    needs = await answers.needs(accepted.turn)
    assert needs.summary == {"tail": 2, "every": 2}
    assert needs.log_content == "none"
    await database.run(jobs.want, talk.session_id, talk.workspace_id, needs)
    await keeping.work(talk.session_id)
    assert {each.text for each in await database.run(summaries, talk)} == {"Inside."}


@pytest.fixture
def embedding(request, settings):
    """A provider of embeddings that tests script; its parameter is what it answers without a script."""
    with ScriptedProvider(dialect=OpenAiEmbeddings(), otherwise=[getattr(request, "param", vectors_of())]) as provider:
        options = {"base_url": provider.base_url, "api_key": "sk-test", "max_retries": 0}
        model = {"PROVIDER": "openai", "MODEL": "scripted", "DIMENSION": DIMENSION, "OPTIONS": options}
        settings.DJANGO_CHAIN = settings.DJANGO_CHAIN | {"EMBEDDINGS": model}
        yield provider


async def test_a_message_that_no_vector_is_made_of_keeps_no_other_from_being_recalled(provider, embedding):
    talk = await Conversation.begin()
    await talk.say("[[refused]] Never mind.", "As you like.")
    for words in (FACT, "And?", "So?"):
        await talk.say(words, "I see.")
    embedding.script("refused", status(400))
    await keep_up(talk, "recall")
    job = await database.run(MemoryJob.objects.get, session_id=talk.session_id)
    assert (job.open, job.error_code) == (False, "")
    assert await database.run(MessageVector.objects.filter(session_id=talk.session_id).count) == 8
    note = (await recalled(talk, "recall", FACT, tail=2))[0]
    assert FACT in note.text
    assert "Never mind" not in note.text


async def test_a_message_of_more_tokens_than_a_model_embeds_is_recalled_by_its_beginning(provider, embedding):
    async def short(reply) -> None:
        fits = max(map(len, texts(reply.exchange.body))) <= 500
        await (vectors_of() if fits else status(400))(reply)

    talk = await Conversation.begin()
    await talk.say("[[long]] My parrot is called Zanzibar. " + "\N{PARROT} " * 600, "I see.")
    await talk.say("And?", "Nothing.")
    embedding.script("long", short)
    await keep_up(talk, "recall")
    history = await recalled(talk, "recall", "My parrot is called Zanzibar.", tail=2, max_tokens=9000, min_score=0.1)
    assert "Zanzibar" in history[0].text


@pytest.mark.parametrize("embedding", [status(400)], indirect=True)
async def test_a_model_that_embeds_nothing_at_all_leaves_the_job_to_be_done_and_the_summary_is_made(
    provider, embedding
):
    talk = await long_talk(6)
    provider.script("notes", text("A summary."), ok())
    needs = needs_of([*definition("recall"), *definition("summary", tail=2, every=2)])
    await database.run(jobs.want, talk.session_id, talk.workspace_id, needs)
    await keeping.work(talk.session_id)
    job = await database.run(MemoryJob.objects.get, session_id=talk.session_id)
    assert (job.open, job.error_code) == (True, "provider_refused")
    assert not await database.run(MessageVector.objects.filter(session_id=talk.session_id).exists)
    assert [each.text for each in await database.run(summaries, talk)] == ["A summary."]


async def test_a_long_message_is_recalled_by_its_beginning(provider):
    talk = await Conversation.begin()
    await talk.say("My parrot is called Zanzibar. " + "It eats nuts and says hello. " * 200, "I see.")
    await talk.say("And?", "Nothing.")
    await keep_up(talk, "recall")
    note = (await recalled(talk, "recall", "What is my parrot called, that eats nuts and says hello?", tail=2))[0]
    assert "Zanzibar" in note.text
    assert TokenCounter().text(note.text) < 700
