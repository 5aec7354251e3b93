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
from llm.errors import ProviderError, ProviderRefused, ProviderUnavailable
from llm.events import Event, Step
from llm.health import Health
from llm.model_call import stream_model
from llm.queueing import Ticket
from llm.state import RunContext
from llm.watchdog import Watchdog

logger = logging.getLogger(__name__)


async def stream_route(
    name: str,
    messages: Sequence[BaseMessage],
    *,
    run: RunContext,
    prompt: PromptVersion | None = None,
    tools: Sequence[BaseTool] = (),
    options: Mapping[str, Any] | None = None,
) -> AsyncGenerator[Event, None]:
    """Ask the alias or route `name` (empty: the default): ModelStarted … ModelFailed a try, at last ModelFinished.

    A `Step` named "queue" tells the place of a call that waits. `tools` and `options` are those of
    `model_call.stream_model`. Raises what the last model failed with, Busy if no place was to be had in time, and
    ProviderUnavailable at once while every model is left alone by its breaker. Close the generator, or cancel the task,
    to stop, also while it waits: the provider's connection is closed before that returns.
    """
    candidates = aliases.candidates(name, run.configuration)
    with _Attempts(candidates, run.configuration.workspace_id) as attempts:
        while True:
            async with aclosing(attempts.ready()) as steps:
                async for step in steps:
                    yield step
            watch = attempts.watch
            asked = stream_model(
                attempts.health.model, messages, run=run, prompt=prompt, tools=tools, options=options, watch=watch
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

    def __init__(self, candidates: Candidates, workspace_id: UUID) -> None:
        self._candidates = candidates
        self._workspace_id = workspace_id
        self._left = deque(strategies.in_order(candidates))
        self._ticket: Ticket | None = None
        self._passage: Passage | None = None
        self._retries = 0
        self._pause: float | None = None
        self._failure: ChainError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._leave()

    async def ready(self) -> AsyncGenerator[Step, None]:
        """Wait until a model may be asked: the same one after its pause, else the next that has a place."""
        if self._pause is not None:
            await asyncio.sleep(self._pause)
            self._pause = None
            if self._passes():
                return
            self._leave()
        while self._left:
            self._turn_to(self._left.popleft())
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
        raise self._failure or self._all_left_alone()

    def answered(self) -> None:
        if self._passage is not None:
            self._passage.answered()

    def another_after(self, failure: ProviderError) -> bool:
        """Take note of a failed call; whether there is another one to make."""
        self._failure = failure
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

    def _turn_to(self, chosen: Health) -> None:
        self.health = chosen
        self._retries = 0
        self.watch = Watchdog(chosen.model.bounds, on_heard=self._heard)

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
