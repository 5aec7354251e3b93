"""The cache of exact repetitions: what is given again, to whom, and what never is."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.utils import timezone
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from kernel import caches, database
from kernel.ids import new_id
from llm import answer_cache, calls, exact_cache
from llm.answer_cache import CacheOptions
from llm.configuration import Configuration, PromptVersion, WorkflowVersion
from llm.events import Event, ModelFinished, ModelStarted, Text
from llm.journal import Call, Closed
from llm.models import CachedAnswer, CallStatus, Workflow
from llm.state import RunContext, WorkflowInput, WorkflowState
from tests.conftest import Person
from tests.support.scripted_provider import Action, Gate, ScriptedProvider, cut, finish, ok, status, text, usage, wait
from vectorstore.models import Collection, Document

LONG = "Twenty-four months from the day of purchase, as the papers that came with it say; keep them."


@dataclass
class Kept:
    """A journal that remembers."""

    opened: list[Call] = field(default_factory=list)
    closed: list[Closed] = field(default_factory=list)

    def output_bound(self, own: int | None) -> int | None:
        return own

    async def open(self, call: Call) -> None:
        self.opened.append(call)

    def close(self, closed: Closed) -> None:
        self.closed.append(closed)


@dataclass
class Asked:
    """What a question came to."""

    events: list[Event]
    journal: Kept

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, Text))

    @property
    def cached(self) -> bool:
        return any(isinstance(event, ModelFinished) and event.cached for event in self.events)


EXACT = CacheOptions().model_dump()


def state_for(person: Person, question: str, *, cache: dict[str, Any] | None = EXACT, **run: Any) -> WorkflowState:
    workspace_id = person.user.personal_workspace.id
    inputs = WorkflowInput(workspace_id=workspace_id, user_id=person.user.id, session_id=None, question=question)
    context = RunContext(Configuration(workspace_id=workspace_id, generation=0), Kept(), cache=cache, **run)
    return WorkflowState.begin(inputs, context)


async def asked(
    state: WorkflowState, *, history: tuple[BaseMessage, ...] = (), alias: str = "", ends_well: bool = True, **more: Any
) -> Asked:
    messages = [*history, HumanMessage(state.question)]
    async with aclosing(calls.stream_answer(state, alias, messages, **more)) as stream:
        events = [event async for event in stream]
    if ends_well:
        await answer_cache.keep(state.run)
    return Asked(events, state.run.journal)


async def stored() -> int:
    return await database.run(CachedAnswer.objects.count)


@pytest.fixture(autouse=True)
def _nothing_is_kept_yet(live_database: None, scripted_alias: Callable[..., None]) -> None:
    CachedAnswer.objects.all().delete()


# Given again ----------------------------------------------------------------------------------------------------------


async def test_the_same_question_is_answered_without_the_provider_as_a_stream_that_costs_nothing(provider, person):
    marker = provider.script("warranty", text(LONG), ok())
    first = await asked(state_for(person, f"How long? {marker}"))
    again = await asked(state_for(person, f"How long? {marker}"))
    assert len(provider.exchanges("warranty")) == 1
    assert (first.cached, again.cached) == (False, True)
    assert first.text == again.text == LONG
    pieces = [event for event in again.events if isinstance(event, Text)]
    assert len(pieces) == 3
    assert isinstance(again.events[0], ModelStarted)
    (finished,) = [event for event in again.events if isinstance(event, ModelFinished)]
    assert (finished.input_tokens, finished.output_tokens) == (0, 0)
    (closed,) = again.journal.closed
    assert (closed.status, closed.usage[:2], closed.call.cached) == (CallStatus.CACHED, (0, 0), True)
    assert closed.call.model == "scripted"
    assert closed.text == LONG
    assert closed.metadata == {"saved_input_tokens": 11, "saved_output_tokens": 1}


async def test_other_work_goes_on_between_the_pieces_of_an_answer_that_is_given_again(provider, person):
    marker = provider.script("turns", text(LONG), ok())
    await asked(state_for(person, marker))
    state, seen = state_for(person, marker), 0
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            beats += 1
            await asyncio.sleep(0)

    async with aclosing(calls.stream_answer(state, "", [HumanMessage(marker)])) as stream:
        other = None
        async for event in stream:
            if isinstance(event, Text):
                other = other or asyncio.create_task(beat())
                seen += 1
        assert other is not None
        other.cancel()
    assert seen == 3
    assert beats >= 2


async def test_one_who_stops_while_an_answer_is_given_again_has_what_was_shown_in_the_log(provider, person):
    marker = provider.script("stopped-again", text(LONG), ok())
    await asked(state_for(person, marker))
    state = state_for(person, marker)
    async with aclosing(calls.stream_answer(state, "", [HumanMessage(marker)])) as stream:
        async for event in stream:
            if isinstance(event, Text):
                break
    (closed,) = state.run.journal.closed
    assert (closed.status, closed.text) == (None, LONG[:40])


async def test_without_the_option_nothing_is_kept_or_given_again(provider, person):
    for _ in range(2):
        assert not (await asked(state_for(person, "[[off]] hello", cache=None))).cached
    assert len(provider.exchanges("off")) == 2
    assert await stored() == 0


async def test_a_model_with_tools_is_always_asked(provider, person):
    for _ in range(2):
        await asked(state_for(person, "[[tools]] hello"), tools=[{"type": "function", "function": {"name": "now"}}])
    assert len(provider.exchanges("tools")) == 2
    assert await stored() == 0


async def test_two_who_ask_the_same_at_once_are_both_answered_and_one_answer_is_kept(provider, person):
    gate = Gate()
    marker = provider.script("twice", text("Yes."), wait(gate), ok())
    both = [asyncio.create_task(asked(state_for(person, marker))) for _ in range(2)]
    await asyncio.to_thread(provider.wait_for, "twice", count=2)
    gate.release()
    assert [one.text for one in await asyncio.gather(*both)] == ["Yes.", "Yes."]
    assert await stored() == 1


# Never given to others, or for another request -----------------------------------------------------------------------


def version(number: int) -> PromptVersion:
    names: list[str] = []
    return PromptVersion(
        id=UUID(int=number), name="p", version=number, template={}, input_variables=names, optional_variables=names
    )


async def test_another_workspace_is_never_given_the_answer(provider, person, make):
    await asked(state_for(person, "[[mine]] hello"))
    assert not (await asked(state_for(await database.run(make), "[[mine]] hello"))).cached
    assert len(provider.exchanges("mine")) == 2


async def test_another_history_is_another_request(provider, person):
    histories = [(HumanMessage("a"), AIMessage("b")), (HumanMessage("a"), AIMessage("c")), (AIMessage("a"),), ()]
    for history in histories:
        assert not (await asked(state_for(person, "[[told]] hello"), history=history)).cached
    # Who said it counts, not only what was said.
    for told in (HumanMessage("a"), SystemMessage("a")):
        assert not (await asked(state_for(person, "[[told]] hello"), history=(told,))).cached
    assert (await asked(state_for(person, "[[told]] hello"), history=histories[0])).cached


async def test_another_prompt_version_is_another_request(person):
    states = [state_for(person, "[[prompt]] hello") for _ in range(3)]
    for state, number in zip(states, (1, 2, 1), strict=True):
        state.prompt = version(number)
    assert [(await asked(state)).cached for state in states] == [False, False, True]


async def test_another_workflow_version_is_another_request(person):
    workspace_id = person.user.personal_workspace.id

    def made(number: int) -> WorkflowVersion:
        definition = [{"type": "llm"}]
        row = Workflow(workspace_id=workspace_id, name="w", version=number, workflow_definition=definition)
        Workflow.objects.bulk_create([row])
        return WorkflowVersion(id=row.id, name="w", version=number, definition=definition)

    first, second = [await database.run(made, number) for number in (1, 2)]
    outcomes = [(await asked(state_for(person, "[[w]] hello", workflow=one))).cached for one in (first, second, first)]
    assert outcomes == [False, False, True]


async def test_other_options_of_the_call_are_another_request(person):
    given = [{"temperature": 0}, {"temperature": 1}, None, {"temperature": 0}]
    outcomes = [(await asked(state_for(person, "[[options]] hello"), options=options)).cached for options in given]
    assert outcomes == [False, False, False, True]


@pytest.mark.parametrize(
    "changed",
    [
        {"MODEL": "another"},
        {"options": {"temperature": 0.9}},
        {"options": {"api_key": "sk-another"}},
        {"options": {"base_url": "http://127.0.0.1:1/v1"}},
        {"MAX_OUTPUT_TOKENS": 7},
    ],
    ids=str,
)
async def test_a_model_that_is_configured_otherwise_is_asked_anew(person, scripted_alias, changed):
    await asked(state_for(person, "hello"))
    assert (await asked(state_for(person, "hello"))).cached
    scripted_alias(**changed)
    state = state_for(person, "hello")
    request = calls._request(state, "", [HumanMessage("hello")], {})  # asking might fail: the address is nobody's
    assert await answer_cache.find(answer_cache.opened(EXACT), request) is None


async def test_no_key_stands_in_what_is_kept(person):
    await asked(state_for(person, "hello"))
    rows = await database.run(lambda: str(list(CachedAnswer.objects.values())))
    assert "sk-test" not in rows


# Only whole answers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "script",
    [
        (text("cut"), finish("length"), usage()),
        (text("fil"), finish("content_filter"), usage()),
        (finish("stop"), usage()),
    ],
    ids=["length", "content filter", "empty"],
)
async def test_an_answer_that_is_not_whole_is_not_kept(provider: ScriptedProvider, person, script: tuple[Action, ...]):
    marker = provider.script("partial", *script)
    await asked(state_for(person, marker))
    assert await stored() == 0


@pytest.mark.parametrize("script", [(text("half"), cut()), (status(500),)], ids=["broken off", "failed"])
async def test_a_failure_is_not_kept(provider, person, script):
    marker = provider.script("broken", *script)
    state = state_for(person, marker)
    with pytest.raises(Exception, match="provider"):
        await asked(state)
    await answer_cache.keep(state.run)
    assert await stored() == 0


async def test_a_stopped_answer_is_not_kept(provider, person):
    gate = Gate()
    marker = provider.script("stop", text("begun"), wait(gate), ok())
    state = state_for(person, marker)
    async with aclosing(calls.stream_answer(state, "", [HumanMessage(marker)])) as stream:
        async for event in stream:
            if isinstance(event, Text):
                break
    gate.release()
    await answer_cache.keep(state.run)
    assert await stored() == 0


async def test_the_answer_of_a_run_that_ends_badly_is_not_kept(person):
    await asked(state_for(person, "hello"), ends_well=False)
    assert await stored() == 0


# How long, how many ---------------------------------------------------------------------------------------------------


async def test_an_answer_that_has_expired_is_not_given_again_and_is_renewed(provider, person):
    await asked(state_for(person, "[[old]] hello"))

    def expire() -> None:
        CachedAnswer.objects.update(expires_at=timezone.now() - timedelta(seconds=1))

    await database.run(expire)
    assert not (await asked(state_for(person, "[[old]] hello"))).cached
    assert await stored() == 1
    assert (await asked(state_for(person, "[[old]] hello"))).cached


async def test_the_ttl_of_the_workflow_holds(person):
    await asked(state_for(person, "hello", cache=CacheOptions(ttl=60).model_dump()))
    row = await database.run(CachedAnswer.objects.get)
    assert 50 < (row.expires_at - timezone.now()).total_seconds() <= 60


def kept(person: Person, key: str, **more: Any) -> CachedAnswer:
    values = {"text": "t", "input_tokens": 1, "output_tokens": 1, "expires_at": timezone.now() + timedelta(hours=1)}
    return CachedAnswer(workspace_id=person.user.personal_workspace.id, key=key, **values | more)


def test_pruning_takes_the_expired_and_the_oldest_of_a_workspace_with_too_many(person, make, monkeypatch):
    monkeypatch.setattr(exact_cache, "MAX_ANSWERS", 2)
    monkeypatch.setattr(exact_cache, "_BATCH", 2)
    other = make()
    for key in "abcde":
        kept(person, key).save()
    kept(other, "f").save()
    kept(other, "g", expires_at=timezone.now() - timedelta(seconds=1)).save()
    assert exact_cache.prune(CachedAnswer) == 4
    assert set(CachedAnswer.objects.values_list("key", flat=True)) == {"d", "e", "f"}


# What it is made of ---------------------------------------------------------------------------------------------------


async def test_the_documents_that_an_answer_was_made_from_are_kept_with_it(person):
    workspace_id = person.user.personal_workspace.id
    collection = await database.run(Collection.objects.create, workspace_id=workspace_id, name="c")
    document = await database.run(
        Document.objects.create, workspace_id=workspace_id, collection=collection, title="t", source="s"
    )
    state, document_id = state_for(person, "hello"), document.id
    state.passages = [{"document_id": str(document_id), "text": "x"}, {"document_id": str(document_id), "text": "y"}]
    await asked(state)
    row = await database.run(CachedAnswer.objects.get)
    assert row.document_ids == [document_id]


async def test_an_answer_from_a_document_that_is_gone_is_not_kept(person):
    state = state_for(person, "hello")
    state.passages = [{"document_id": str(new_id()), "text": "x"}]
    await asked(state)
    assert not await database.run(CachedAnswer.objects.exists)


async def test_a_cache_that_fails_is_a_miss_that_the_log_names(person, monkeypatch, caplog):
    class Broken:
        def __init__(self, config: dict[str, Any]) -> None: ...

        async def find(self, request: Any) -> None:
            raise database.DatabaseUnavailable

        async def keep(self, request: Any, answer: Any) -> None:
            raise database.DatabaseUnavailable

    monkeypatch.setattr(answer_cache, "opened", Broken)
    assert not (await asked(state_for(person, "hello"))).cached
    assert [record.message for record in caplog.records if "answer_cache_failed" in record.message] == [
        f"action=answer_cache_failed what={what} error=DatabaseUnavailable" for what in ("find", "keep")
    ]


async def test_hits_and_misses_are_counted(person):
    def counted() -> caches.Figures:
        return caches.figures()["exact_answers"]

    before = counted()
    for _ in range(3):
        await asked(state_for(person, "hello"))
    after = counted()
    assert (after.hits - before.hits, after.misses - before.misses) == (2, 1)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"kind": "redis"}, "known: exact, semantic"),
        ({"ttl": 0}, "greater than or equal to 1"),
        ({"ttl": 2_592_001}, "less than or equal to 2592000"),
        ({"threshold": 1.1}, "less than or equal to 1"),
        ({"size": 3}, "not permitted"),
    ],
)
def test_options_that_can_not_be_say_so(options, fault):
    with pytest.raises(ValueError, match=fault):
        CacheOptions.model_validate(options)
