"""The reader has a session in which something was said."""

from typing import Any

import pytest

from llm.state import RunContext
from llm.workflows import WorkflowInput, WorkflowState, compile_workflow
from tests.conftest import Person
from tests.memory.conversations import Conversation


async def names(person: Person, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    talk = await Conversation.begin()
    for number in range(4):
        await talk.say(f"q{number}", f"a{number}")
    return {"session_id": talk.session_id, "talk": talk}


async def check(names: dict[str, Any]) -> None:
    assert [message.text for message in names["messages"]] == ["q0", "a0", "q1", "a1", "q2", "a2", "q3", "a3"]
    talk = names["talk"]
    inputs = WorkflowInput(talk.workspace_id, None, talk.session_id, "next?", before_order=talk.next_order)
    state = WorkflowState.begin(inputs, RunContext.unlogged(inputs.workspace_id))
    (step,) = compile_workflow([{"type": "memory", "kind": "only_questions", "options": {"limit": 3}}]).steps
    assert [event async for event in step.run(state)] == []
    assert [message.text for message in state.history] == ["q1", "q2", "q3"]
