"""Validators and middleware around a run, with the fake model."""

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from kernel.errors import ChainError
from kernel.ids import new_id
from llm import checks, registry, signals, validators, workflows
from llm.configuration import Configuration
from llm.errors import AnswerRefused, QuestionRefused, WorkflowInvalid
from llm.events import Event, ModelStarted, Step, Text
from llm.journal import RunJournal, RunRef
from llm.state import RunContext, WorkflowInput
from llm.validators import PASS, Context, Verdict, refuse
from tests.llm.conftest import NOBODY, Configure
from tests.support.scripted_provider import ScriptedProvider

FAKE = {"PROVIDER": "fake", "MODEL": "fake", "OPTIONS": {"answers": ["the answer of bob@example.org"]}}


@pytest.fixture(autouse=True)
def _names() -> Iterator[None]:
    yield
    for kind in (registry.validators, registry.middleware, registry.callback_handlers):
        for name in [name for name in kind.names() if name.startswith("test_")]:
            kind.remove(name)


async def run(question: str = "hello", *, within: RunContext | None = None, **options: Any) -> list[Event]:
    inputs = WorkflowInput(workspace_id=NOBODY, user_id=None, session_id=None, question=question)
    seen: list[Event] = []
    stream = workflows.stream({"steps": [{"type": "llm"}], **options}, inputs, run=within)
    async with aclosing(stream) as events:
        async for event in events:
            seen.append(event)
            if isinstance(event, Text):
                shown.append(event.text)
    return seen


shown: list[str] = []


@pytest.fixture(autouse=True)
def _model(configure: Configure) -> None:
    shown.clear()
    configure(default=FAKE)


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Text))


async def test_a_refused_question_reaches_no_model(
    scripted_alias: Callable[..., None], provider: ScriptedProvider
) -> None:
    before = len(provider.exchanges())
    rules = {"validator": "rules", "words": ["Projekt Élan"], "message": "Not here."}
    with pytest.raises(QuestionRefused, match="Not here"):
        await run("tell me of PROJEKT  elan!", input_validators=[rules])
    assert not shown
    assert len(provider.exchanges()) == before
    assert text_of(await run("tell me of projekt elans", input_validators=[rules]))
    assert len(provider.exchanges()) == before + 1


async def test_a_replaced_question_is_what_the_model_gets() -> None:
    events = await run("I am bob@example.org", input_validators=[{"validator": "rules", "redact": True}])
    (started,) = (event for event in events if isinstance(event, ModelStarted))
    assert started.messages[-1]["content"] == "I am [redacted:email]"


async def test_a_refused_answer_shows_nothing_of_it() -> None:
    with pytest.raises(AnswerRefused):
        await run(output_validators=[{"validator": "rules", "patterns": ["answer"]}])
    assert shown == []


async def test_an_answer_is_shown_in_the_form_that_passed() -> None:
    events = await run(output_validators=[{"validator": "rules", "redact": True}])
    assert text_of(events) == "the answer of [redacted:email]"


@pytest.mark.parametrize("rules", [{"max_chars": 3}, {"patterns": ["(?i)HELL."]}, {"words": ["hello"]}])
async def test_each_rule_refuses(rules: dict[str, Any]) -> None:
    with pytest.raises(QuestionRefused):
        await run("hello", input_validators=[{"validator": "rules", **rules}])


async def test_a_validator_that_raises_or_hangs_lets_nothing_through(monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    class Hangs:
        async def check(self, text: str, context: Context) -> Verdict:
            await asyncio.Event().wait()
            return PASS

    def raises(text: str, context: Context) -> Verdict:
        raise RuntimeError(text)

    registry.validators.add("test_hangs", lambda config: Hangs())
    registry.validators.add("test_raises", lambda config: raises)
    monkeypatch.setattr(validators, "TIMEOUT", 0.05)
    for name in ("test_hangs", "test_raises"):
        with pytest.raises(ChainError) as raised:
            await run(output_validators=[{"validator": name}])
        assert raised.value.code == "validator_failed"
    assert shown == []


async def test_a_validator_may_be_a_plain_function_and_is_told_whose_text_it_is() -> None:
    told: list[Context] = []

    def check(text: str, context: Context) -> Verdict:
        told.append(context)
        return refuse("no") if context.of == "output" else PASS

    registry.validators.add("test_plain", lambda config: check)
    own = [{"validator": "test_plain"}]
    with pytest.raises(AnswerRefused, match="no"):
        await run(input_validators=own, output_validators=own)
    assert [context.of for context in told] == ["input", "output"]


async def test_middleware_stands_around_the_run_the_first_outermost(configure: Configure) -> None:
    for name in ("test_a", "test_b"):

        @registry.middleware.register(name)
        async def wraps(run: Any, inputs: Any, call_next: Any, name: str = name) -> AsyncGenerator[Event, None]:
            yield Step(name, "started")
            async with aclosing(call_next(inputs)) as events:
                async for event in events:
                    yield event
            yield Step(name, "finished")

    configure(default=FAKE, MIDDLEWARE=["test_a", "test_b"])
    steps = [event.name + event.state[0] for event in await run() if isinstance(event, Step) if "test" in event.name]
    assert steps == ["test_as", "test_bs", "test_bf", "test_af"]


async def test_middleware_may_answer_by_itself(configure: Configure) -> None:
    @registry.middleware.register("test_short")
    async def short(run: Any, inputs: Any, call_next: Any) -> AsyncGenerator[Event, None]:
        yield Text("closed today")

    configure(default=FAKE, MIDDLEWARE=["test_short"])
    events = await run()
    assert text_of(events) == "closed today"
    assert not any(isinstance(event, ModelStarted) for event in events)


async def test_middleware_may_change_the_question(configure: Configure) -> None:
    @registry.middleware.register("test_changes")
    def changes(run: Any, inputs: WorkflowInput, call_next: Any) -> AsyncGenerator[Event, None]:
        return call_next(replace(inputs, question="another"))  # type: ignore[no-any-return]

    configure(default=FAKE, MIDDLEWARE=["test_changes"])
    (started,) = (event for event in await run("hello") if isinstance(event, ModelStarted))
    assert started.messages[-1]["content"] == "another"


@pytest.mark.parametrize("error", [ChainError("closed", code="closed"), RuntimeError("a bug")])
@pytest.mark.parametrize("late", [False, True])
async def test_what_middleware_raises_ends_the_run(configure: Configure, error: Exception, late: bool) -> None:
    closed: list[bool] = []

    @registry.middleware.register("test_raises")
    async def raises(run: Any, inputs: Any, call_next: Any) -> AsyncGenerator[Event, None]:
        if not late:
            raise error
        try:
            async with aclosing(call_next(inputs)) as events:
                async for event in events:
                    yield event
                    if isinstance(event, Text):
                        raise error
        finally:
            closed.append(True)

    configure(default=FAKE, MIDDLEWARE=["test_raises"])
    with pytest.raises(type(error)) as raised:
        await run()
    assert raised.value is error
    assert (len(shown), closed) == ((1, [True]) if late else (0, []))


async def test_a_callback_handler_that_raises_harms_no_answer(configure: Configure) -> None:
    from langchain_core.callbacks import AsyncCallbackHandler

    called: list[str] = []

    class Raises(AsyncCallbackHandler):
        async def on_chat_model_start(self, *_: Any, **__: Any) -> None:
            called.append("start")
            raise RuntimeError

        async def on_llm_new_token(self, *_: Any, **__: Any) -> None:
            called.append("token")
            raise RuntimeError

        async def on_llm_end(self, *_: Any, **__: Any) -> None:
            called.append("end")
            raise RuntimeError

    told: list[dict[str, Any]] = []

    def made(config: dict[str, Any]) -> Raises:
        told.append(config)
        return Raises()

    registry.callback_handlers.add("test_raises", made)
    configure(default=FAKE, CALLBACKS=["test_raises"])
    assert text_of(await run()) == "the answer of bob@example.org"
    assert {"start", "token", "end"} == set(called)
    assert [one["workspace_id"] for one in told] == [str(NOBODY)]


async def test_the_first_token_is_told_once_and_only_after_text(live_database: None) -> None:
    seen: list[tuple[Any, list[str]]] = []

    def note(run: RunRef, **_: Any) -> None:
        seen.append((run, list(shown)))

    ref = RunRef(run_id=new_id(), workspace_id=NOBODY, user_id=None)

    def logged() -> RunContext:
        journal = RunJournal(ref)
        holding = Configuration(workspace_id=NOBODY, generation=0)
        journal.under(holding, workflow_id=None)
        return RunContext(holding, journal)

    await run(within=logged())
    assert not seen, "nobody listened yet"
    signals.first_token.connect(note, weak=False, dispatch_uid="test")
    try:
        await run(within=RunContext.unlogged(NOBODY))
        assert not seen, "such a run leaves no rows, so nothing of it is told"
        with pytest.raises(QuestionRefused):
            await run("darn", within=logged(), input_validators=[{"validator": "rules", "words": ["darn"]}])
        assert not seen, "it said nothing"
        shown.clear()
        await run(within=logged())
    finally:
        signals.first_token.disconnect(dispatch_uid="test")
    ((of, so_far),) = seen
    assert of == ref
    assert so_far


@pytest.mark.parametrize(
    "wrong", [{}, {"validator": "nope"}, {"validator": "rules", "patterns": ["("]}, {"validator": "rules", "what": 1}]
)
def test_a_workflow_with_a_wrong_validator_is_refused_with_its_place(wrong: dict[str, Any]) -> None:
    with pytest.raises(WorkflowInvalid, match=r"input_validators\[0\]"):
        workflows.compile_workflow({"steps": [{"type": "llm"}], "input_validators": [wrong]})


def test_the_check_names_what_nobody_registered(configure: Configure) -> None:
    configure(
        default=FAKE, MIDDLEWARE=["a"], CALLBACKS=["b"], INPUT_VALIDATORS=[{"validator": "c"}],
        OUTPUT_VALIDATORS=[{"validator": "rules", "words": 5}],
    )  # fmt: skip
    told = " ".join(fault.msg for fault in checks.check_names(None))
    for part in ('["MIDDLEWARE"][0]', '["CALLBACKS"][0]', '["INPUT_VALIDATORS"][0]', '["OUTPUT_VALIDATORS"][0]'):
        assert part in told
