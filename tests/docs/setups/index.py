"""The project's own README: the reader has a model class, a workspace, a session, and a key in the environment."""

from typing import Any

import pytest

from accounts.access import workspace_for
from chat.models import ChatSession
from kernel import database
from tests.conftest import Person
from tests.docs.setups.providers import CustomLLM, answer_of
from tests.memory.conversations import Conversation


async def names(person: Person, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-not-a-key")
    talk = await Conversation.begin()
    await talk.say("hello", "good day")
    session = await ChatSession.objects.aget(id=talk.session_id)
    workspace = await database.run(workspace_for, person.caller)
    return {"CustomLLM": CustomLLM, "session": session, "workspace": workspace}


async def check(names: dict[str, Any]) -> None:
    assert await answer_of("custom_provider") == "custom: hello"
    assert [passage.metadata["source"] for passage in names["passages"]] == ["x200.md"]
    assert [message.text for message in names["messages"]] == ["hello", "good day"]
