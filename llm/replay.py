"""A kept answer, shown as if a model gave it now: a stream, and a row of the log that costs nothing."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from time import monotonic

from langchain_core.messages import BaseMessage

from llm.answer_cache import Answer
from llm.events import Event, ModelFinished, ModelStarted, Text
from llm.journal import Call, Closed
from llm.model_call import logged
from llm.models import CallStatus
from llm.state import WorkflowState
from llm.usage import Usage

#: Characters that are shown at once.
PIECE = 40
_NOTHING = Usage(0, 0, estimated=False)


async def stream(
    known: Answer, state: WorkflowState, messages: Sequence[BaseMessage], begun: float
) -> AsyncGenerator[Event, None]:
    """ModelStarted, Text…, ModelFinished of an answer that is known; `begun`: when it was looked for (monotonic)."""
    call = _call(known, state, messages)
    await state.run.journal.open(call)
    first_text_ms, shown, whole = None, 0, False
    try:
        yield ModelStarted(call.alias, call.provider, call.model, call.parameters, call.messages, call.number)
        for start in range(0, len(known.text), PIECE):
            piece = known.text[start : start + PIECE]
            first_text_ms = first_text_ms if shown else _since(begun)
            shown += len(piece)
            yield Text(piece)
            # A stop is heard between two pieces, and other answers go on.
            await asyncio.sleep(0)
        whole = True
    finally:
        state.run.journal.close(
            Closed(
                call=call,
                status=CallStatus.CACHED if whole else None,
                usage=_NOTHING,
                text=known.text[:shown],
                first_token_ms=first_text_ms,
                latency_ms=_since(begun),
                metadata={"saved_input_tokens": known.input_tokens, "saved_output_tokens": known.output_tokens},
            )
        )
    yield ModelFinished(0, 0, False, first_text_ms, _since(begun), call=call.number, cached=True)


def _call(known: Answer, state: WorkflowState, messages: Sequence[BaseMessage]) -> Call:
    target = known.target
    return Call(
        number=state.run.next_call(),
        alias=target.alias,
        provider=target.provider,
        model=target.model,
        parameters=target.parameters,
        messages=[logged(message) for message in messages],
        prompt_id=None if state.prompt is None else state.prompt.id,
        cached=True,
    )


def _since(begun: float) -> int:
    return round((monotonic() - begun) * 1000)
