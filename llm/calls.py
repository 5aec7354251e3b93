"""A step's way to a model: the response cache if the workflow has one, then the router."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from time import monotonic
from typing import Any
from uuid import UUID

from langchain_core.messages import BaseMessage
from langchain_core.tools import BaseTool

from llm import aliases, answer_cache, replay, router
from llm.aliases import BuiltModel, Candidates
from llm.answer_cache import Answer, AnswerCache, Fresh, Request, Target
from llm.errors import ContextExceeded
from llm.events import Event, ModelFinished, ModelStarted, Text
from llm.model_call import logged
from llm.state import WorkflowState
from llm.window import Draft, Fitted, Gate

#: How the providers say that an answer is whole; with any other end (a length, a filter) it is not kept.
_WHOLE = frozenset({"stop", "end_turn", "stop_sequence", "eos_token", "completed"})


def stream_answer(
    state: WorkflowState,
    model: str,
    messages: Sequence[BaseMessage] | Draft,
    *,
    tools: Sequence[BaseTool] = (),
    options: Mapping[str, Any] | None = None,
) -> AsyncGenerator[Event, None]:
    """Ask the model or route `model` (empty: the default) on behalf of a step: ModelStarted, Text…, ModelFinished.

    With `tools` the model is always asked: what a tool says may change. `options` are this call's own. Of a `Draft`
    some is left out where a model's window is too small for all of it.
    """
    draft = messages if isinstance(messages, Draft) else Draft.of(messages)
    asked = router.stream_route(model, draft, run=state.run, prompt=state.prompt, tools=tools, options=options)
    if state.run.cache is None or tools:
        return asked
    return _through_cache(state, model, draft, options or {}, asked)


async def _through_cache(
    state: WorkflowState,
    model: str,
    draft: Draft,
    options: Mapping[str, Any],
    asked: AsyncGenerator[Event, None],
) -> AsyncGenerator[Event, None]:
    assert state.run.cache is not None
    begun = monotonic()
    gate = Gate(draft, state.run, options=options)
    fitted, models = await _fitted(gate, aliases.candidates(model, state.run.configuration))
    cache = answer_cache.opened(state.run.cache)
    request = _request(state, models, fitted.messages, options)
    known = await answer_cache.find(cache, request) if models else None
    if known is None:
        answer = _noted(asked, state, cache, request, fitted)
    else:
        for told in gate.told(fitted):
            yield told
        answer = replay.stream(known, state, fitted.messages, begun)
    async with aclosing(answer) as events:
        async for event in events:
            yield event


async def _fitted(gate: Gate, candidates: Candidates) -> tuple[Fitted, list[BuiltModel]]:
    """What the first model that can be asked is sent, and all that are sent the same: an answer is kept for those."""
    first: Fitted | None = None
    same: list[BuiltModel] = []
    for model in candidates.models:
        try:
            fitted = await gate.fit(model.bounds)
        except ContextExceeded:
            continue
        first = first or fitted
        if list(fitted.messages) == list(first.messages):
            same.append(model)
    return first or Fitted(messages=gate.draft.messages, passages=gate.draft.passages), same


async def _noted(
    asked: AsyncGenerator[Event, None], state: WorkflowState, cache: AnswerCache, request: Request, fitted: Fitted
) -> AsyncGenerator[Event, None]:
    """The events of a call as they are; its answer is noted if it is a whole one, to the very prompt of `request`."""
    pieces: list[str] = []
    target: Target | None = None
    expected = [logged(message) for message in fitted.messages]
    async with aclosing(asked) as events:
        async for event in events:
            yield event
            if event.__class__ is Text:
                pieces.append(event.text)
            elif isinstance(event, ModelStarted):
                # Of a route's models the last one that was started has answered.
                target = next((one for one in request.targets if one.alias == event.alias), None)
                if event.messages != expected:
                    target = None
            elif isinstance(event, ModelFinished) and target is not None:
                text = "".join(pieces)
                if text and event.finish_reason.lower() in _WHOLE:
                    answer = Answer(
                        target=target,
                        text=text,
                        input_tokens=event.input_tokens,
                        output_tokens=event.output_tokens,
                    )
                    state.run.fresh.append(Fresh(cache, request, answer))


def _request(
    state: WorkflowState, models: Sequence[BuiltModel], messages: Sequence[BaseMessage], options: Mapping[str, Any]
) -> Request:
    run = state.run
    return Request(
        workspace_id=state.inputs.workspace_id,
        workflow_id=None if run.workflow is None else run.workflow.id,
        prompt_id=None if state.prompt is None else state.prompt.id,
        targets=tuple(_target(one) for one in models),
        parameters=options,
        messages=tuple(_plain(message) for message in messages),
        question=state.question,
        document_ids=tuple(sorted({UUID(str(hit["document_id"])) for hit in state.passages})),
    )


def _target(model: BuiltModel) -> Target:
    return Target(
        alias=model.alias,
        provider=model.bounds.provider,
        model=model.bounds.model,
        parameters=model.parameters,
        fingerprint=model.key,
    )


def _plain(message: BaseMessage) -> dict[str, Any]:
    """What a provider is told of a message. Its id is not part of that."""
    told = {"role": message.type, "content": message.content, "name": message.name}
    for name in ("tool_calls", "tool_call_id"):
        told[name] = getattr(message, name, None)
    return told
