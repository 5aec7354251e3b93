"""A stored workflow as one of LangChain's Runnables, for people who compose chains of their own with it.

Imported only by those who ask for it. Answers in chats don't go this way: it costs more for each token.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar, cast
from uuid import UUID

from langchain_core.runnables import Runnable, RunnableConfig
from typing_extensions import override

from kernel.errors import Invalid
from llm import aliases, configuration, execution, workflows
from llm.configuration import WorkflowVersion
from llm.events import Event, Output, Text
from llm.journal import Unwritten
from llm.runs import Ask
from llm.state import RunContext, WorkflowInput

#: The question, or an object with `question` (or `input`), `variables`, and any variables beside them.
Asked: TypeAlias = str | Mapping[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Whose:
    """Whose run it is, and which workflow."""

    workspace_id: UUID
    workflow: WorkflowVersion
    user_id: int | None = None
    session_id: UUID | None = None
    #: Whether its model calls have rows in the interaction log.
    log: bool = field(default=True)


class WorkflowRunnable(Runnable[Asked, Any]):
    """Gives the answer's text, or the value that the workflow's last steps made of it.

    The sync methods run an event loop of their own; inside one, use the async ones.
    """

    def __init__(self, whose: Whose) -> None:
        self.name = whose.workflow.name
        self._whose = whose

    @override
    def invoke(self, input: Asked, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        return in_a_loop(self.ainvoke(input, config, **kwargs))

    @override
    async def ainvoke(self, input: Asked, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        return await self._acall_with_config(self._value, input, config, **kwargs)

    @override
    def stream(self, input: Asked, config: RunnableConfig | None = None, **kwargs: Any | None) -> Iterator[Any]:
        _no_loop_here()
        with asyncio.Runner() as runner:
            pieces = self.astream(input, config, **kwargs)
            try:
                while True:
                    try:
                        piece = runner.run(_next(pieces))
                    except StopAsyncIteration:
                        return
                    yield piece
            finally:
                runner.run(_closed(pieces))

    @override
    async def astream(
        self, input: Asked, config: RunnableConfig | None = None, **kwargs: Any | None
    ) -> AsyncGenerator[Any, None]:
        """The answer's pieces as they come, if the workflow ends in text; else its value, at once."""
        pieces = self._atransform_stream_with_config(_one(input), self._pieces, config, **kwargs)
        async with aclosing(cast("AsyncGenerator[Any, None]", pieces)) as closing:
            async for piece in closing:
                yield piece

    async def _value(self, asked: Asked) -> Any:
        value: Any = None
        async with aclosing(self._events(asked)) as events:
            async for event in events:
                if isinstance(event, Output):
                    value = event.value
        return value

    async def _pieces(self, inputs: AsyncIterator[Asked]) -> AsyncGenerator[Any, None]:
        wanted = Text if self._ends_in_text() else Output
        async for asked in inputs:
            async with aclosing(self._events(asked)) as events:
                async for event in events:
                    if isinstance(event, wanted):
                        yield event.text if isinstance(event, Text) else event.value

    def _ends_in_text(self) -> bool:
        steps = workflows.compile_workflow(self._whose.workflow.definition).steps
        made = [step for step in steps if not (step.type == "parser" and getattr(step, "parser", "") == "str")]
        return bool(made) and made[-1].speaks

    async def _events(self, asked: Asked) -> AsyncGenerator[Event, None]:
        whose = self._whose
        question, variables = _asked(asked)
        if whose.log:
            ask = Ask(
                workspace_id=whose.workspace_id,
                user_id=whose.user_id,
                workflow=whose.workflow.name,
                version=whose.workflow.version,
                question=question,
                variables=variables,
                session_id=whose.session_id,
            )
            events = execution.execute(ask)
        else:
            inputs = WorkflowInput(whose.workspace_id, whose.user_id, whose.session_id, question, variables=variables)
            run = RunContext(await configuration.current(whose.workspace_id), Unwritten(), workflow=whose.workflow)
            events = workflows.stream(whose.workflow.definition, inputs, run=run)
        async with aclosing(events):
            async for event in events:
                yield event


def _asked(asked: Asked) -> tuple[str, dict[str, Any]]:
    if isinstance(asked, str):
        return asked, {}
    if not isinstance(asked, Mapping):
        raise Invalid("A workflow takes a text, or an object with 'question' and variables.")
    given = dict(asked)
    question = given.pop("question", given.pop("input", ""))
    variables = given.pop("variables", {})
    if not isinstance(question, str) or not isinstance(variables, Mapping):
        raise Invalid("A workflow's 'question' is a text, and its 'variables' are an object.")
    return question, {**variables, **given}


def _no_loop_here() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError("An event loop runs in this thread: use ainvoke, astream or the other async methods.")


def in_a_loop(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, for sync methods: in a loop of its own, whose connections are closed after it."""
    try:
        _no_loop_here()
    except RuntimeError:
        work.close()
        raise

    async def and_close() -> T:
        try:
            return await work
        finally:
            await aliases.close()

    with asyncio.Runner() as runner:
        return runner.run(and_close())


async def _one(asked: Asked) -> AsyncGenerator[Asked, None]:
    yield asked


async def _next(pieces: AsyncGenerator[Any, None]) -> Any:
    return await anext(pieces)


async def _closed(pieces: AsyncGenerator[Any, None]) -> None:
    """Also the connections of this loop's models."""
    await pieces.aclose()
    await aliases.close()
