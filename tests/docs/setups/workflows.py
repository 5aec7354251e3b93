"""The reader has a workspace and a session in it; the model says "Because."."""

from typing import Any
from uuid import uuid4

import pytest

from chat import answers
from chat.sessions import create_session
from chat.turns import Turn
from kernel import database
from llm.events import ModelStarted, Step, Text
from llm.journal import RunJournal
from llm.workflows import WorkflowInput, stream
from tests.conftest import Person


async def names(person: Person, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    model = {"PROVIDER": "fake", "MODEL": "fake", "OPTIONS": {"text": '{"answer": "Because."}'}}
    session = await database.run(create_session, person.caller)
    workspace = await database.run(lambda: session.workspace)
    return {"session": session, "workspace": workspace, "DJANGO_CHAIN": {"LLM": {"MODELS": {"default": model}}}}


async def check(names: dict[str, Any]) -> None:
    assert names["told"] == '{"answer": "Because."}'
    assert names["answer"] == '{"answer": "Because."}'
    await _check_that_the_session_uses_its_workflow(names)
    await _check_the_glossary()
    await _check_the_parser(names)


async def _check_that_the_session_uses_its_workflow(names: dict[str, Any]) -> None:
    session = names["session"]
    turn = Turn(
        run_id=uuid4(),
        workspace_id=session.workspace_id,
        session_id=session.id,
        user_id=session.user_id,
        workflow_id=session.workflow_id,
        question="Why?",
        question_id=uuid4(),
        question_order=1,
        answer_id=uuid4(),
        answer_order=2,
    )
    events = [event async for event in answers.answer(turn, RunJournal(turn.ref), [])]
    asked = next(event for event in events if isinstance(event, ModelStarted))
    assert asked.messages == [{"role": "user", "content": "Say that you don't know. They asked: Why?"}]


async def _check_the_glossary() -> None:
    steps: list[dict[str, Any]] = [
        {"type": "glossary", "words": {"X200": "our largest"}},
        {"type": "prompt", "template": "{glossary} {question}"},
        {"type": "llm"},
    ]
    inputs = WorkflowInput(workspace_id=uuid4(), user_id=None, session_id=None, question="the X200?")
    events = [event async for event in stream(steps, inputs)]
    assert isinstance(events[0], Step)
    assert (events[0].name, events[0].state, events[0].detail["words"]) == ("glossary", "finished", 1)
    asked = next(event for event in events if isinstance(event, ModelStarted))
    assert asked.messages[0]["content"] == "X200: our largest the X200?"
    assert any(isinstance(event, Text) for event in events)


async def _check_the_parser(names: dict[str, Any]) -> None:
    parser = names["SemverParser"]({"least": 2})
    assert parser.parse("2.10.1") == {"major": 2, "minor": 10, "patch": 1}
    with pytest.raises(ValueError, match="older"):
        parser.parse("1.0.0")
