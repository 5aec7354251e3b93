"""From an alias or a route to the answer of one model: the queue for a place, retries, and the next model if one fails.

All of that happens before the first token only; whoever waits for the answer notices nothing of it. Each request to a
provider is a call of its own, with its own row in the log.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from langchain_core.messages import BaseMessage
from langchain_core.tools import BaseTool

from kernel.errors import Busy, ChainError
from llm import aliases, health, retries, strategies
from llm.aliases import Candidates
from llm.breaker import Passage
from llm.configuration import PromptVersion
from llm.errors import (
    ContextExceeded,
    ProviderContextExceeded,
    ProviderError,
    ProviderRefused,
    ProviderUnavailable,
)
from llm.events import Event, Step
from llm.health import Health
from llm.model_call import stream_model
from llm.queueing import Ticket
from llm.state import RunContext
from llm.watchdog import Watchdog
from llm.window import Draft, Fitted, Gate

logger = logging.getLogger(__name__)


async def stream_route(
    name: str,
    messages: Sequence[BaseMessage] | Draft,
    *,
    run: RunContext,
    prompt: PromptVersion | None = None,
    tools: Sequence[BaseTool] = (),
    options: Mapping[str, Any] | None = None,
) -> AsyncGenerator[Event, None]:
    """Ask the alias or route `name` (empty: the default): ModelStarted … ModelFailed a try, at last ModelFinished.

    A `Step` named "queue" tells the place of a call that waits. Each model gets as much of the prompt as its window
    holds: a `Step` named "window" tells what was left out, `Sources` the passages that are left. `tools` and `options`
    are those of `model_call.stream_model`. Raises what the last model failed with, ContextExceeded if the prompt is too
    long for all of them, Busy if no place was to be had in time, and ProviderUnavailable at once while every model is
    left alone by its breaker. Close the generator, or cancel the task, to stop, also while it waits: the provider's
    connection is closed before that returns.
    """
    candidates = aliases.candidates(name, run.configuration)
    gate = Gate(messages if isinstance(messages, Draft) else Draft.of(messages), run, tools=tools, options=options)
    with _Attempts(candidates, run.configuration.workspace_id, gate) as attempts:
        while True:
            async with aclosing(attempts.ready()) as steps:
                async for step in steps:
                    yield step
            model, watch, fitted = attempts.health.model, attempts.watch, attempts.fitted
            for told in gate.told(fitted):
                yield told
            asked = stream_model(
                model, fitted.messages, run=run, prompt=prompt, tools=tools, options=options, watch=watch
            )
            try:
                async with aclosing(asked) as events:
                    async for event in events:
                        yield event
            except ProviderError as failure:
                if not attempts.another_after(failure):
                    raise
            else:
                attempts.answered()
                return


class _Attempts:
    """Which model is asked now, and what must be given back however it ends."""

    health: Health
    watch: Watchdog
    #: What that model is sent.
    fitted: Fitted

    def __init__(self, candidates: Candidates, workspace_id: UUID, gate: Gate) -> None:
        self._candidates = candidates
        self._workspace_id = workspace_id
        self._gate = gate
        self._left = deque(strategies.in_order(candidates))
        self._ticket: Ticket | None = None
        self._passage: Passage | None = None
        self._retries = 0
        self._pause: float | None = None
        #: A model has refused the prompt as too long: the tokens that it is sent then, once.
        self._limit: int | None = None
        self._shortened = False
        self._failure: ChainError | None = None
        #: Of the models that were passed over, as the prompt is too long for them, the one with the most room.
        self._unfit: ContextExceeded | None = None
        self._passed_over = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._leave()

    async def ready(self) -> AsyncGenerator[Step, None]:
        """Wait until a model may be asked: the same one after its pause, else the next that has a place."""
        if await self._once_more():
            return
        while self._left:
            self._turn_to(self._left.popleft())
            if misfit := await self._misfit():
                self._passed_over += 1
                yield self._gate.passes_over(self.health.model.alias, misfit)
                continue
            self.watch = Watchdog(self.health.model.bounds, on_heard=self._heard)
            try:
                self._ticket = ticket = self.health.places.ask(self._workspace_id)
                async with aclosing(ticket.wait(self.health.model.bounds.queue_timeout)) as steps:
                    async for step in steps:
                        yield step
            except Busy as busy:
                self._failure = busy
            else:
                # Its breaker may have opened while this call waited.
                if self._passes():
                    self.health.retries.call()
                    return
            self._leave()
        unfit = self._unfit if self._passed_over == len(self._candidates.models) else None
        raise self._failure or unfit or self._all_left_alone()

    async def _once_more(self) -> bool:
        """Whether the same model is asked again: after a pause, or with a shorter prompt."""
        if self._pause is None and self._limit is None:
            return False
        if self._pause is not None:
            await asyncio.sleep(self._pause)
            self._pause = None
        elif await self._misfit(self._limit) is not None:
            self._leave()
            return False
        if self._passes():
            return True
        self._leave()
        return False

    def answered(self) -> None:
        if self._passage is not None:
            self._passage.answered()

    def another_after(self, failure: ProviderError) -> bool:
        """Take note of a failed call; whether there is another one to make."""
        self._failure = failure
        if isinstance(failure, ProviderContextExceeded):
            return self._shorter_after(failure)
        if isinstance(failure, ProviderRefused):
            return False
        if self._passage is not None:
            self._passage.failed(failure.code)
        another = not self.watch.spoke and (self._try_again(failure) or bool(self._left))
        logger.warning(
            "action=call_failed alias=%s retries=%d code=%s error=%s another=%s",
            self.health.model.alias, self._retries, failure.code, type(failure.__cause__ or failure).__name__, another,
        )  # fmt: skip
        if self._pause is None:
            self._leave()
        return another

    def _try_again(self, failure: ProviderError) -> bool:
        """Whether the same model is asked again, after `_pause`."""
        if self._retries >= self.health.model.bounds.max_retries or not self.health.breaker.passable:
            return False
        pause = retries.delay(failure, self._retries)
        if pause is None or not self.watch.allows(pause) or not self.health.retries.take():
            return False
        self._retries += 1
        self._pause = pause
        return True

    def _shorter_after(self, failure: ProviderContextExceeded) -> bool:
        """The same model is asked once more with less, in its place and without a pause; then a larger one may do."""
        if self._passage is not None:
            self._passage.leave()
            self._passage = None
        model = self.health.model
        again = not self._shortened and model.bounds.overflow == "trim" and self.watch.allows(0)
        logger.warning(
            "action=context_exceeded alias=%s declared=%s window=%s asked=%s another=%s",
            model.alias, model.bounds.context_tokens, failure.window, failure.asked, again or bool(self._left),
        )  # fmt: skip
        if self.watch.spoke:
            return False
        if again:
            self._shortened = True
            self._limit = self._gate.less_than(self.fitted, model.bounds, failure)
        else:
            self._leave()
        return again or bool(self._left)

    async def _misfit(self, limit: int | None = None) -> ContextExceeded | None:
        """Why the model can't be sent what must stay of the prompt; None: it can, and `fitted` is what it is sent."""
        self._limit = None
        try:
            self.fitted = await self._gate.fit(self.health.model.bounds, limit=limit)
        except ContextExceeded as error:
            if self._unfit is None or error.limit > self._unfit.limit:
                self._unfit = error
            return error
        return None

    def _turn_to(self, chosen: Health) -> None:
        self.health = chosen
        self._retries = 0
        self._shortened = False

    def _heard(self) -> None:
        if self._passage is not None:
            self._passage.heard()

    def _passes(self) -> bool:
        self._passage = self.health.breaker.enter()
        return self._passage is not None

    def _leave(self) -> None:
        """Give back whatever is held: the place, the right to probe, the timer."""
        if self._passage is not None:
            self._passage.leave()
            self._passage = None
        if self._ticket is not None:
            self._ticket.leave()
            self._ticket = None
            self.watch.close()

    def _all_left_alone(self) -> ProviderUnavailable:
        """Every model's breaker is open; say when the first one is tried again."""
        soonest = min(health.of(model).breaker.wait for model in self._candidates.models)
        return ProviderUnavailable(retry_after=round(max(1.0, soonest), 1))
