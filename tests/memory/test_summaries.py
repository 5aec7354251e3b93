"""Summaries and recall from end to end: jobs run in this process, the model is a scripted provider over HTTP."""

import asyncio
import re
from itertools import count
from uuid import UUID

import pytest
from langchain_core.messages import BaseMessage

from chat import branches
from chat.models import ChatHistory, ChatSession
from accounts.access import Caller, caller_of
from kernel import database, redis
from llm import aliases, health
from llm.events import Text
from llm.models import InteractionLog
from llm.state import RunContext
from llm.workflows import WorkflowInput, WorkflowState, compile_workflow, stream
from llm import configuration
from memory import exchange, jobs, keeping
from memory.jobs import Needs, needs_of
from memory.models import MemoryJob, MessageVector, Summary
from tests.memory.conversations import Conversation
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
        await talk.say(FACT if number == 1 else f"[[notes]] Tell me of number {number}.", f"It is number {number}, as said.")
    return talk


async def test_three_hundred_messages_fit_a_small_model_that_still_knows_a_fact_from_message_three(provider):
    talk = await long_talk(150)
    provider.script("notes", text("Sister Ottilie has the parrot Zanzibar."), ok())
    provider.script("ask", text("Zanzibar."), ok())
    await keep_up(talk, "summary_buffer", max_tokens=300)
    await keep_up(talk, "recall", tail=4)
    question = "[[ask]] What is the parrot of my sister Ottilie called?"
    for kind, options in (("summary_buffer", {"max_tokens": 300}), ("recall", {"tail": 4})):
        inputs = WorkflowInput(talk.workspace_id, None, talk.session_id, question, before_order=talk.next_order)
        run = RunContext.unlogged(talk.workspace_id)
        events = [event async for event in stream(definition(kind, **options), inputs, run=run)]
        assert any(isinstance(event, Text) for event in events)
        sent = provider.exchanges("ask")[-1].messages
        assert "Zanzibar" in str(sent[:-1])
        assert "window" not in str(run.trace)
        assert len(str(sent)) < 1200 * 4
