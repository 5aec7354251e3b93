"""What a server process runs beside its requests: the hub, the runner, their end.

Made when the process gets its first socket, or earlier by the ASGI lifespan where the server has one (Daphne has none).
On SIGTERM it drains *before* the server's own handler closes every socket at once.
"""

import asyncio
import gc
import logging
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from math import inf
from random import uniform
from time import monotonic
from types import FrameType
from typing import Any, Protocol
from uuid import UUID

from chat import protocol, replay
from chat.hub import Hub
from chat.outbox import Outbox
from chat.protocol import Close
from chat.replay import Credentials
from chat.runner import Runner
from kernel import database, redis
from kernel.conf import config
from kernel.errors import ChainError
from llm import aliases, sweeping
from llm.embeddings.embedder import embedder
from llm.execution import executions
from memory import gone
from vectorstore.watching import Watcher

logger = logging.getLogger(__name__)

_CLOSE_BATCH = 100
#: Seconds in which a SIGTERM behind another is the same stop: it went to a process group, and its supervisor passes it
#: on (uvicorn's looks twice a second).
_SAME_STOP = 1.0
#: Seconds between two looks for runs of dead processes; a worker does it too, where there is one.
_SWEEP_EVERY = 60


class Connected(Protocol):
    """A socket, as the runtime needs it."""

    outbox: Outbox
    session_id: UUID | None
    credentials: Credentials

    @property
    def entered(self) -> bool: ...

    @property
    def welcomed(self) -> bool: ...

    async def close(self, code: Close) -> None: ...

    async def turn_out(self, error: ChainError) -> None: ...


class Runtime:
    """One a process and event loop; `Runtime.current()` makes and starts it."""

    _current: "Runtime | None" = None

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.hub = Hub()
        self.runner = Runner(self.hub)
        self.connections: set[Connected] = set()
        self.warm = False
        self._drained: asyncio.Task[None] | None = None
        self._signals = 0
        self._told_to_end = -inf
        self._tasks: list[asyncio.Task[None]] = []
        self._original_handlers: dict[int, Any] = {}

    @classmethod
    def current(cls) -> "Runtime":
        """This process's runtime; started when it is first asked for in an event loop."""
        runtime = cls._current
        if runtime is None or runtime.loop is not asyncio.get_running_loop():
            runtime = cls._current = cls()
            runtime.start()
        return runtime

    @classmethod
    def running(cls) -> "Runtime | None":
        """This process's runtime, if it has been started in this event loop."""
        runtime = cls._current
        return runtime if runtime is not None and runtime.loop is asyncio.get_running_loop() else None

    @property
    def draining(self) -> bool:
        return self.runner.draining

    def start(self) -> None:
        self.hub.start()
        self.runner.start()
        self._tasks = [
            asyncio.create_task(self._warm(), name="chain-warm"),
            asyncio.create_task(self._watch_connections(), name="chain-watch"),
            asyncio.create_task(self._sweep(), name="chain-sweep"),
        ]
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._original_handlers[number] = signal.signal(number, self._on_signal)

    async def close(self) -> None:
        """End everything this process runs; idempotent."""
        if Runtime._current is self:
            Runtime._current = None
        for number, handler in self._original_handlers.items():
            if signal.getsignal(number) == self._on_signal:
                signal.signal(number, handler)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await executions.close()
        await self.runner.close()
        await self.hub.close()
        await aliases.close()
        await redis.close()
        database.close()
        gone.close()  # after the threads that delete

    async def _warm(self) -> None:
        """Import and build what a turn needs in a thread, so that no first user waits for it."""
        try:
            await asyncio.to_thread(aliases.warm)
            await embedder().query("warm")
        except ChainError as error:
            logger.error("action=warm_failed error=%s", error.message)  # noqa: TRY400  its text is the whole story
        _settle_memory()
        self.warm = True

    async def _sweep(self) -> None:
        """End the runs that dead processes left open: a server without a worker does it by itself."""
        while True:
            try:
                await database.run(sweeping.sweep)
            except ChainError as error:
                logger.info("action=sweep_later error=%s", error.code)
            except Exception:
                logger.exception("action=sweep_failed")
            await asyncio.sleep(_SWEEP_EVERY)

    # Drain -----------------------------------------------------------------------------------------------------------

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """Drain first, then let the server's own handler end it; a second signal that isn't an echo doesn't wait."""
        original = self._original_handlers[number]
        if number == signal.SIGTERM:
            if monotonic() - self._told_to_end < _SAME_STOP:
                return
            self._told_to_end = monotonic()
        # Counted here: the drain begins with the loop's next round, and a second signal may be faster.
        self._signals += 1
        if self._signals > 1:
            _call(original, number, frame)
            return
        self.loop.call_soon_threadsafe(self._start_drain, lambda: _call(original, number, frame))

    def _start_drain(self, then: Callable[[], None]) -> None:
        self._drained = asyncio.create_task(self.drain(), name="chain-drain")
        # A server that a second signal has ended meanwhile would take another call for a signal of its own.
        self._drained.add_done_callback(lambda _: None if self._signals > 1 else then())

    async def drain(self) -> None:
        """Say goodbye, let the turns end or hand them over, close the sockets in batches."""
        options, began = config().chat, monotonic()
        logger.info("action=drain sockets=%d turns=%d", len(self.connections), len(self.runner.jobs))
        self.runner.draining = True
        for one in self.connections:
            if one.welcomed:  # the others are told with their welcome
                one.outbox.reply(self.goodbye())
        Watcher.current().end()
        await asyncio.gather(self.runner.drain(options.drain_seconds), executions.drain(options.drain_seconds))
        left = list(self.connections)
        for start in range(0, len(left), _CLOSE_BATCH):
            batch = left[start : start + _CLOSE_BATCH]
            with suppress(TimeoutError):
                async with asyncio.timeout(5):
                    await asyncio.gather(*(one.close(Close.RESTART) for one in batch), return_exceptions=True)
            await asyncio.sleep(0.05)
        logger.info("action=drained seconds=%.1f", monotonic() - began)

    def goodbye(self, reason: str = "restart") -> protocol.Goodbye:
        """Each socket gets a time of its own, so that they don't all come back at once."""
        return protocol.Goodbye(
            reason=reason,
            reconnect_after=round(uniform(0.1, config().chat.reconnect_spread), 2),  # noqa: S311
        )

    # Connections -----------------------------------------------------------------------------------------------------

    async def _watch_connections(self) -> None:
        """Close those that stalled, and those whose people were signed out or lost their membership."""
        validated_at = monotonic()
        while True:
            await asyncio.sleep(1)
            now = monotonic()
            stalled = [one for one in self.connections if _stalled(one, now)]
            # Each may take a moment; an error of one is not the others'.
            await asyncio.gather(*(one.close(Close.SLOW) for one in stalled), return_exceptions=True)
            if now - validated_at >= config().chat.revalidate_seconds:
                validated_at = now
                try:
                    await self._revalidate()
                except ChainError as error:
                    logger.info("action=revalidate_later error=%s", error.code)
                except Exception:
                    # Stalled sockets are closed by this task, too: it goes on.
                    logger.exception("action=revalidate_failed")

    async def _revalidate(self) -> None:
        known = [one for one in self.connections if one.entered]
        for start in range(0, len(known), 100):
            batch = known[start : start + 100]
            asked = [(one.credentials, one.session_id) for one in batch]
            for one, objection in zip(batch, await database.run(replay.objections, asked), strict=True):
                if objection is not None:
                    await one.turn_out(objection)


def _stalled(one: Connected, now: float) -> bool:
    since = one.outbox.sending_since
    return since is not None and now - since > config().chat.slow_seconds


def _settle_memory() -> None:
    """What is loaded by now stays for ever: don't let each collection look at it, and look less often.

    LangChain keeps every chunk of an answer until its end, which by the defaults means a full collection every few
    thousand tokens: a third of a token's cost.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)


def _call(handler: Any, number: int, frame: FrameType | None) -> None:
    server: Any = getattr(handler, "__self__", None)
    if getattr(server, "should_exit", None) is False:
        # uvicorn would end by raising the signal again: after an orderly drain that looks like a crash.
        server.should_exit = True
    elif callable(handler):
        handler(number, frame)
    elif handler == signal.SIG_DFL:
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
