"""LangChain's chat history over a session."""

import asyncio

import pytest
from langchain_core.messages import HumanMessage

from chat.models import ChatSession
from kernel import database
from kernel.errors import Refused
from memory.history import SessionHistory
from tests.memory.conversations import Conversation

pytestmark = pytest.mark.django_db(transaction=True)


async def test_a_session_s_memory_is_what_was_said():
    conversation = await Conversation.begin()
    await conversation.say("one?", "1")
    await conversation.say("two?", "2")
    await conversation.say("lost?", "", status="failed")
    session = await database.run(ChatSession.objects.get, id=conversation.session_id)
    said = await session.memory.aget_messages()
    assert [message.text for message in said] == ["one?", "1", "two?", "2", "lost?"]
    newest = SessionHistory(conversation.session_id, limit=2)
    assert [message.text for message in await newest.aget_messages()] == ["2", "lost?"]
    # In sync code, such as a thread's.
    assert await asyncio.to_thread(lambda: [message.text for message in newest.messages]) == ["2", "lost?"]


async def test_it_is_written_by_turns_alone():
    conversation = await Conversation.begin()
    await conversation.say("one?", "1")
    history = SessionHistory(conversation.session_id)
    for refused in (history.aadd_messages([HumanMessage("two?")]), history.aclear()):
        with pytest.raises(Refused, match="conversation"):
            await refused
    assert len(await history.aget_messages()) == 2
