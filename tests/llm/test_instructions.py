"""Models whose chat template takes one system message, the first, and turns that alternate are asked in any case."""

from collections.abc import Callable
from itertools import groupby
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from llm.events import ModelStarted, Text
from llm.instructions import first_of_all
from llm.registry import memories, tools
from llm.state import RunContext
from llm.tokens import TokenCounter, most
from llm.workflows import WorkflowInput, stream
from tests.llm.conftest import NOBODY
from tests.support import scripted_provider as script
from tests.support.scripted_provider import Reply, ScriptedProvider

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:langgraph")

NOTE = "Notes on what was said: the parrot is called Zanzibar."


@pytest.fixture(autouse=True)
def _alias(scripted_alias: Callable[..., None]) -> None: ...


@pytest.fixture(autouse=True)
def _noting() -> Any:
    """A memory with a note, and a tool."""

    class Noting:
        def __init__(self, config: dict[str, Any]) -> None: ...

        async def recall(self, store: Any, *, question: str, before_order: int) -> list[BaseMessage]:
            return [SystemMessage(NOTE), HumanMessage("Hello?"), AIMessage("Hello.")]

    async def nothing() -> str:
        """Nothing."""
        return "nothing"

    memories.register("noting")(Noting)
    tools.add("nothing", lambda config: nothing)
    yield
    memories.remove("noting")
    tools.remove("nothing")


async def strict(reply: Reply) -> None:
    """As many chat templates: one system message at most, the first, and then turns that alternate."""
    roles = [message["role"] for message in reply.exchange.messages]
    turns = roles[1:] if roles[0] == "system" else roles
    if turns != ["user", "assistant"] * (len(turns) // 2) + ["user"]:
        await script.status(400)(reply)
    else:
        await script.text("Fine.")(reply)
        await script.ok()(reply)


MEMORY = {"type": "memory", "kind": "noting"}
HISTORY = {"role": "placeholder", "content": "{history}"}
RULES = {"role": "system", "content": "Be brief."}
QUESTION = {"role": "user", "content": "{question}"}
#: Each with what the one system message says, in this order.
WORKFLOWS: dict[str, tuple[list[dict[str, Any]], list[str]]] = {
    "the note alone": ([MEMORY, {"type": "llm"}], [NOTE]),
    "the built-in prompt": ([MEMORY, {"type": "prompt"}, {"type": "llm"}], ["You are a helpful assistant.", NOTE]),
    "rules, then the history": (
        [MEMORY, {"type": "prompt", "messages": [RULES, HISTORY, QUESTION]}, {"type": "llm"}],
        ["Be brief.", NOTE],
    ),
    "rules behind the history": (
        [MEMORY, {"type": "prompt", "messages": [HISTORY, RULES, QUESTION]}, {"type": "llm"}],
        [NOTE, "Be brief."],
    ),
    "a reminder at the end": (
        [MEMORY, {"type": "prompt", "messages": [RULES, HISTORY, QUESTION, RULES]}, {"type": "llm"}],
        ["Be brief.", NOTE, "Be brief."],
    ),
    "an agent": (
        [MEMORY, {"type": "prompt"}, {"type": "agent", "tools": ["nothing"], "system": "You have tools."}],
        ["You have tools.", "You are a helpful assistant.", NOTE],
    ),
}


@pytest.mark.parametrize("name", WORKFLOWS)
async def test_a_model_that_takes_one_system_message_is_asked(provider: ScriptedProvider, name: str) -> None:
    definition, told = WORKFLOWS[name]
    marker = provider.script("strict", strict)
    inputs = WorkflowInput(NOBODY, None, uuid4(), f"{marker} What is it called?", before_order=3)
    events = [event async for event in stream(definition, inputs, run=RunContext.unlogged(NOBODY))]
    assert "".join(event.text for event in events if isinstance(event, Text)) == "Fine."
    (exchange,) = provider.exchanges("strict")
    system, *said = exchange.messages
    assert [message["role"] for message in said] == ["user", "assistant", "user"]
    assert said[-1]["content"].endswith("What is it called?")
    places = [system["content"].index(words) for words in told[:2]]
    assert places == sorted(places)
    assert system["content"].count("Be brief.") == told.count("Be brief.")
    # What is told and logged is what was sent.
    (started,) = (event for event in events if isinstance(event, ModelStarted))
    assert started.messages == exchange.messages


MESSAGES = st.lists(
    st.builds(
        lambda kind, text: kind(text),
        st.sampled_from([SystemMessage, HumanMessage, AIMessage]),
        st.text("ab é🙂", max_size=12),
    ),
    max_size=8,
)


@given(MESSAGES)
def test_nothing_is_lost_and_no_prompt_grows(messages: list[BaseMessage]) -> None:
    before = [message.text for message in messages]
    sent = first_of_all(messages)
    told = [message for message in sent if message.type == "system"]
    assert told in ([], [sent[0]] if sent else [])
    sides = [list(side) for _, side in groupby((m for m in messages if m.type != "system"), key=lambda m: m.type)]
    assert [(m.type, m.text) for m in sent if m.type != "system"] == [
        (side[0].type, "\n\n".join(m.text for m in side if m.text)) for side in sides
    ]
    instructions = [m.text for m in messages if m.type == "system"]
    assert not instructions or told[0].text == (
        "\n\n".join(filter(None, instructions)) if len(instructions) > 1 else instructions[0]
    )
    assert TokenCounter()(sent) <= TokenCounter()(messages)
    assert most(sent) <= most(messages)
    assert [message.text for message in messages] == before
    assert first_of_all(sent) is sent


@pytest.mark.parametrize(
    "said",
    [
        [HumanMessage("Hello?"), HumanMessage("Anybody?"), AIMessage("Yes.")],
        [HumanMessage("Hello?"), AIMessage("Hello."), AIMessage("It is red.")],
        [HumanMessage("Hello?"), AIMessage("Hello."), HumanMessage("Anybody?")],
    ],
    ids=["an answer failed", "a question was deleted", "the last answer failed"],
)
async def test_a_model_that_wants_turns_in_turn_is_asked_after_what_went_wrong(
    provider: ScriptedProvider, said: list[BaseMessage]
) -> None:
    class Holed:
        def __init__(self, config: dict[str, Any]) -> None: ...

        async def recall(self, store: Any, *, question: str, before_order: int) -> list[BaseMessage]:
            return said

    memories.register("holed")(Holed)
    try:
        marker = provider.script("holed", strict)
        inputs = WorkflowInput(NOBODY, None, uuid4(), f"{marker} What is it called?", before_order=3)
        workflow = [{"type": "memory", "kind": "holed"}, {"type": "llm"}]
        events = [event async for event in stream(workflow, inputs, run=RunContext.unlogged(NOBODY))]
    finally:
        memories.remove("holed")
    assert "".join(event.text for event in events if isinstance(event, Text)) == "Fine."
    (exchange,) = provider.exchanges("holed")
    places = [str(exchange.messages).index(message.text) for message in said]
    assert places == sorted(places)


def test_calls_of_tools_stay_with_their_results() -> None:
    call = {"id": "1", "name": "nothing", "args": {}}
    messages = [
        HumanMessage("?"),
        AIMessage("So."),
        AIMessage("", tool_calls=[call]),
        ToolMessage("!", tool_call_id="1"),
    ]
    assert first_of_all(messages) is messages


def test_blocks_stay_blocks() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.org/x.png"}}
    (told, _) = first_of_all([SystemMessage("Look."), HumanMessage("?"), SystemMessage([image])])
    assert told.content == [{"type": "text", "text": "Look."}, image]
