"""What happens around every run: validators of the question, middleware, validators of the answer."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

from kernel import database
from kernel.conf import config
from llm import signals, validators
from llm.errors import AnswerRefused, QuestionRefused
from llm.events import Event, Output, Text
from llm.journal import RunRef
from llm.registry import middleware
from llm.state import RunContext, WorkflowInput
from llm.validators import Context

Inner: TypeAlias = Callable[[WorkflowInput], AsyncGenerator[Event, None]]


def around(
    inputs: WorkflowInput, run: RunContext, options: Mapping[str, Any], inner: Inner
) -> AsyncGenerator[Event, None]:
    """The events of `inner(inputs)` as the registered parts let them through.

    `options` are those of the workflow: `input_validators` and `output_validators` beside the setting's, and
    `log_content`. Nothing stands between a token and its reader that isn't asked for.
    """
    if options.get("log_content"):
        run.journal.keep(options["log_content"])
    for name in reversed(config().llm.middleware):
        inner = partial(_through, name, run, inner)
    if wanted := [*validators.of_setting("output"), *(options.get("output_validators") or ())]:
        inner = partial(_held_back, wanted, run, inner)
    if wanted := [*validators.of_setting("input"), *(options.get("input_validators") or ())]:
        inner = partial(_questioned, wanted, run, inner)
    if signals.first_token.receivers and run.journal.run is not None:
        inner = partial(_first_token_told, run.journal.run, inner)
    return inner(inputs)


def _through(name: str, run: RunContext, inner: Inner, inputs: WorkflowInput) -> AsyncGenerator[Event, None]:
    events: AsyncGenerator[Event, None] = middleware.get(name)(run, inputs, inner)
    return events


async def _questioned(
    wanted: list[Mapping[str, Any]], run: RunContext, inner: Inner, inputs: WorkflowInput
) -> AsyncGenerator[Event, None]:
    verdict = await validators.judged(inputs.question, wanted, _context(inputs, run, "input"))
    if verdict.refused is not None:
        raise QuestionRefused(verdict.refused)
    if verdict.text is not None:
        inputs = replace(inputs, question=verdict.text)
    async with aclosing(inner(inputs)) as events:
        async for event in events:
            yield event


async def _held_back(
    wanted: list[Mapping[str, Any]], run: RunContext, inner: Inner, inputs: WorkflowInput
) -> AsyncGenerator[Event, None]:
    """Text and output come once the whole of them has passed; what a validator refuses is not shown at all."""
    pieces: list[str] = []
    output: Output | None = None
    async with aclosing(inner(inputs)) as events:
        async for event in events:
            if isinstance(event, Text):
                pieces.append(event.text)
            elif isinstance(event, Output):
                output = event
            else:
                yield event
    context = _context(inputs, run, "output")
    text = "".join(pieces)
    passed = await _passed(text, wanted, context)
    if output is not None and isinstance(output.value, str):
        # Mostly the text itself: judged once.
        output = Output(passed if output.value == text else await _passed(output.value, wanted, context))
    elif output is not None and output.value is not None:
        output = Output(await _passed_within(output.value, wanted, context))
    if passed:
        yield Text(passed)
    if output is not None:
        yield output


async def _passed(text: str, wanted: list[Mapping[str, Any]], context: Context) -> str:
    verdict = await validators.judged(text, wanted, context)
    if verdict.refused is not None:
        raise AnswerRefused(verdict.refused)
    return text if verdict.text is None else verdict.text


async def _passed_within(value: Any, wanted: list[Mapping[str, Any]], context: Context) -> Any:
    """The texts within an output of data, each by itself."""
    if isinstance(value, str):
        return await _passed(value, wanted, context)
    if isinstance(value, list):
        return [await _passed_within(one, wanted, context) for one in value]
    if isinstance(value, dict):
        return {key: await _passed_within(one, wanted, context) for key, one in value.items()}
    return value


async def _first_token_told(ref: RunRef, inner: Inner, inputs: WorkflowInput) -> AsyncGenerator[Event, None]:
    telling: asyncio.Task[None] | None = None
    try:
        async with aclosing(inner(inputs)) as events:
            async for event in events:
                if telling is None and isinstance(event, Text):
                    # Beside the answer: receivers may take their time.
                    telling = asyncio.create_task(database.run(signals.tell, signals.first_token, run=ref))
                yield event
    finally:
        if telling is not None:
            await asyncio.gather(telling, return_exceptions=True)


def _context(inputs: WorkflowInput, run: RunContext, of: str) -> Context:
    return Context(
        workspace_id=inputs.workspace_id,
        user_id=inputs.user_id,
        session_id=inputs.session_id,
        run_id=run.run_id,
        of=of,
    )
