"""The `memory` step: kinds and stores by name, from the settings or from the workflow."""

import pytest
from langchain_core.messages import HumanMessage

from kernel import redis
from llm.errors import WorkflowInvalid
from llm.registry import memories, workflow_steps
from llm.state import RunContext
from llm.tokens import TokenCounter
from llm.workflows import WorkflowInput, WorkflowState, compile_workflow
from memory.exchange import stores_of
from tests.memory.conversations import Conversation

pytestmark = pytest.mark.django_db(transaction=True)


async def recalled(talk: Conversation, **options) -> list[str]:
    inputs = WorkflowInput(talk.workspace_id, None, talk.session_id, "next?", before_order=talk.next_order)
    state = WorkflowState.begin(inputs, RunContext.unlogged(talk.workspace_id))
    (step,) = compile_workflow([{"type": "memory", **options}]).steps
    assert [event async for event in step.run(state)] == []
    return [message.text for message in state.history]


@pytest.fixture
async def talk() -> Conversation:
    conversation = await Conversation.begin()
    for number in range(15):
        await conversation.say(f"q{number}", f"a{number}")
    return conversation


async def test_without_options_the_settings_choose(talk):
    assert await recalled(talk) == [f"{kind}{n}" for n in range(5, 15) for kind in "qa"]


@pytest.mark.parametrize("options", [{"k": 3}, {"window": 3}, {"kind": "buffer_window", "k": 3}])
async def test_a_window_of_three_opens_with_a_question(talk, options):
    assert await recalled(talk, **options) == ["q14", "a14"]


@pytest.mark.parametrize("store", ["postgres", "redis"])
@pytest.mark.parametrize("kind", ["buffer", "buffer_window", "token_window"])
async def test_every_kind_reads_every_store(talk, redis_url, kind, store):
    assert (await recalled(talk, kind=kind, store=store))[-2:] == ["q14", "a14"]
    await redis.close()


async def test_a_buffer_keeps_all_of_it_up_to_its_bound(talk, settings):
    assert len(await recalled(talk, kind="buffer")) == 30
    settings.DJANGO_CHAIN = settings.DJANGO_CHAIN | {"MEMORY": {"MAX_MESSAGES": 5}}
    assert await recalled(talk, kind="buffer") == ["q13", "a13", "q14", "a14"]


async def test_a_token_window_keeps_the_newest_messages_that_fit(talk):
    counter = TokenCounter()
    for max_tokens in (40, 60, 200):
        texts = await recalled(talk, kind="token_window", options={"max_tokens": max_tokens})
        assert texts == [f"{kind}{n}" for n in range(15) for kind in "qa"][-len(texts) :]
        assert sum(counter.message(HumanMessage(text)) for text in texts) <= max_tokens
        assert texts[0].startswith("q")


async def test_a_token_window_leaves_out_a_message_that_is_too_long_and_all_before_it(talk):
    await talk.say("long " * 500, "short")
    await talk.say("last?", "yes")
    assert await recalled(talk, kind="token_window", options={"max_tokens": 100}) == ["last?", "yes"]


async def test_a_run_without_a_conversation_has_no_history(talk):
    state = WorkflowState.begin(
        WorkflowInput(talk.workspace_id, None, None, "?"), RunContext.unlogged(talk.workspace_id)
    )
    (step,) = compile_workflow([{"type": "memory"}]).steps
    assert [event async for event in step.run(state)] == []
    assert state.history == []


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"kind": "elephant"}, "kind"),
        ({"store": "attic"}, "store"),
        ({"k": 0}, "k"),
        ({"k": 2, "window": 3}, "window"),
        ({"size": 3}, "size"),
        ({"kind": "token_window", "options": {"tokens": 9}}, r"options\.tokens: not an option here; known: max_tokens"),
        ({"kind": "token_window", "k": 3}, r"options\.k: not an option here"),
        ({"kind": "token_window", "options": {"max_tokens": 1}}, r"options\.max_tokens"),
    ],
)
def test_a_wrong_option_is_named(options, named):
    with pytest.raises(WorkflowInvalid, match=rf"steps\[0\]\.{named}"):
        compile_workflow([{"type": "memory", **options}])


async def test_a_kind_of_your_own_gets_its_options(talk):
    class Shouting:
        def __init__(self, config):
            self.config = config

        async def recall(self, store, *, question, before_order):
            found = await store.aget_messages(limit=self.config["lines"], before_order=before_order)
            return [message.model_copy(update={"content": message.text.upper()}) for message in found]

    memories.register("shouting")(Shouting)
    try:
        assert await recalled(talk, kind="shouting", options={"lines": 2}) == ["Q14", "A14"]
    finally:
        memories.remove("shouting")


def test_the_stores_of_a_workflow_are_those_its_memory_steps_name():
    assert stores_of(None) == {"postgres"}
    assert stores_of([{"type": "llm"}]) == set()
    nested = [{"type": "parallel", "steps": {"a": [{"type": "memory", "store": "redis"}], "b": [{"type": "memory"}]}}]
    assert stores_of(nested) == {"redis", "postgres"}


def test_the_step_is_named_without_importing_it():
    assert "memory" in workflow_steps.names()
