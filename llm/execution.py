"""Running workflows outside of chats: for REST, for sockets, for programs. Each run leaves its rows in the log.

A run's work and its end belong to the process, never to the request that asked: whoever asked may go away, and the run
is stopped, its provider's connection closed, its rows ended. What a run says is read at the reader's own pace.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing, suppress
from time import monotonic
from typing import Any
from uuid import UUID

from msgspec import structs

from kernel import database
from kernel.errors import Busy, ChainError, DatabaseUnavailable, NotFound, Unavailable
from kernel.redaction import redact, redact_data
from llm import configuration, runs
from llm.configuration import Configuration, WorkflowVersion
from llm.events import Event, Step, Text
from llm.journal import Ending, RunJournal, RunRef
from llm.models import CallStatus
from llm.runs import Ask, Usage
from llm.state import RunContext, WorkflowInput

logger = logging.getLogger(__name__)

#: Runs of this process at once.
MAX_RUNS = 200
#: Events that may wait for their reader, and for how many seconds; a run that nobody reads is stopped.
_AHEAD = 256
_READ_WITHIN = 30.0
#: Seconds that a model may take to end after it was told to.
_PATIENCE = 5.0
#: Seconds that a reader waits for the end to be written; while the database is away it is told without.
_WRITE_WITHIN = 5.0


class Execution:
    """One run. Read it with `take` and `more`, or with `events`; `status` is None until it has ended."""

    def __init__(self, ask: Ask, run: RunRef, workflow: WorkflowVersion, holding: Configuration) -> None:
        self.id = run.run_id
        self.workspace_id = run.workspace_id
        self.user_id = run.user_id
        self.workflow = workflow
        self.status: CallStatus | None = None
        self.error: ChainError | None = None
        self.usage = Usage()
        self.trace: list[dict[str, Any]] = []
        self._ask = ask
        self._configuration = holding
        self._journal = RunJournal(run)
        self._journal.under(holding, workflow_id=workflow.id)
        self._said: list[str] = []
        self._waiting: deque[Event] = deque()
        self._more, self._room = asyncio.Event(), asyncio.Event()
        self._cut_at: float | None = None
        self._work = asyncio.create_task(self._run(), name="chain-run")

    @property
    def text(self) -> str:
        """The answer as far as it has come."""
        return "".join(self._said)

    @property
    def empty(self) -> bool:
        """No event waits."""
        return not self._waiting

    @property
    def failure(self) -> dict[str, str] | None:
        """What clients are told of the error, redacted: `code` and `message`."""
        return None if self.error is None else {"code": self.error.code, "message": redact(self.error.message)}

    def take(self) -> Event | None:
        """The next event if one waits."""
        if not self._waiting:
            return None
        self._room.set()
        return self._waiting.popleft()

    async def more(self, timeout: float | None = None) -> bool:
        """Wait for an event or the end; False if neither came in so many seconds."""
        while not self._waiting and self.status is None:
            self._more.clear()
            try:
                async with asyncio.timeout(timeout):
                    await self._more.wait()
            except TimeoutError:
                return False
        return True

    async def events(self) -> AsyncGenerator[Event, None]:
        """What happens, to its end. Raises the run's own error. Whoever closes it early stops the run."""
        try:
            while await self.more():
                event = self.take()
                if event is None:
                    break
                yield event
            if self.error is not None:
                raise self.error
        finally:
            self.stop()

    async def ended(self) -> None:
        """Wait for the end to be written; nothing that waits will be read any more."""
        while self.status is None:
            self._waiting.clear()
            self._room.set()
            await self.more()

    @property
    def here(self) -> bool:
        """Whether it belongs to the event loop that asks; another thread's is not ours to touch."""
        return self._work.get_loop() is asyncio.get_running_loop()

    def stop(self) -> None:
        """Stop the run; harmless when it has ended."""
        if self._cut_at is None and not self._work.done():
            self._cut_at = monotonic()
            self._work.cancel()

    async def lead(self) -> None:
        """See the run through to its written end."""
        try:
            await self._end()
        finally:
            if self.status is None:  # the process ends first; the sweep writes it, and nobody waits for that
                self.status = CallStatus.INTERRUPTED
                self._more.set()

    async def _end(self) -> None:
        await self._worked()
        status, self.error = self._outcome()
        code = self.error.code if self.error is not None else ""
        ending = self._journal.ending(status, error_category=code, text=self.text, steps=tuple(self.trace))
        writing = asyncio.create_task(self._write(ending))
        try:
            await asyncio.wait([writing], timeout=_WRITE_WITHIN)
            self.status = status
            self._more.set()
            await writing
        finally:
            writing.cancel()

    async def _run(self) -> None:
        from llm import workflows  # noqa: PLC0415  brings LangChain, which start-up must not

        ask = self._ask
        inputs = WorkflowInput(
            ask.workspace_id, ask.user_id, ask.session_id, ask.question, ask.before_order, variables=ask.variables
        )
        run = RunContext(self._configuration, self._journal, run_id=self.id, workflow=self.workflow, trace=self.trace)
        async with aclosing(workflows.stream(self.workflow.definition, inputs, run=run)) as events:
            async for event in events:
                if self._cut_at is not None:
                    return  # its end may be written already: nothing is shown beyond that
                if isinstance(event, Text):
                    self._said.append(event.text)
                await self._put(event)

    async def _put(self, event: Event) -> None:
        while len(self._waiting) >= _AHEAD:
            self._room.clear()
            try:
                async with asyncio.timeout(_READ_WITHIN):
                    await self._room.wait()
            except TimeoutError:
                self.stop()
                raise
        if isinstance(event, Step):
            event = structs.replace(event, detail=redact_data(event.detail))
        self._waiting.append(event)
        self._more.set()

    async def _worked(self) -> None:
        """Wait for the work's end; one that was cut and doesn't end is left behind."""
        while not self._work.done():
            await asyncio.wait([self._work], timeout=_PATIENCE)
            if not self._work.done() and self._cut_at is not None and monotonic() - self._cut_at > _PATIENCE:
                logger.error("action=model_ignores_stop run=%s", self.id)
                return

    def _outcome(self) -> tuple[CallStatus, ChainError | None]:
        if self._cut_at is not None or self._work.cancelled():
            if self._work.done() and not self._work.cancelled():
                self._work.exception()  # it was told to end, so how it did is nobody's concern
            return CallStatus.STOPPED, None
        error = self._work.exception()
        if error is None:
            return CallStatus.OK, None
        if isinstance(error, ChainError):
            return CallStatus.FAILED, error
        logger.error("action=run_failed run=%s", self.id, exc_info=error)
        return CallStatus.FAILED, ChainError()

    async def _write(self, ending: Ending) -> None:
        """Write the end, however long the database is away; what can't be written whole is written bare."""
        wait, bare = 0.2, False
        while True:
            try:
                self.usage = await database.run(runs.end_run, ending)
            except (DatabaseUnavailable, Busy):
                await asyncio.sleep(wait)
                wait = min(wait * 2, 5.0)
            except Exception:
                logger.exception("action=run_end_failed run=%s", self.id)
                if bare:
                    return  # the sweep ends it
                ending, bare = ending.bare(error_category="internal", text=""), True
            else:
                return


class Executions:
    """The runs of this process."""

    def __init__(self) -> None:
        self.draining = False
        self._running: dict[UUID, Execution] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._opening = 0

    async def begin(self, ask: Ask) -> Execution:
        """Open a run and begin it; when this returns, its first row is committed.

        Raises NotFound that names the workflow, WorkflowInvalid, BudgetExceeded, Busy, Unavailable (`draining`).
        """
        if self.draining:
            raise Unavailable("The server is going away; ask again.", code="draining", retry_after=1)
        if len(self._running) + self._opening >= MAX_RUNS:
            raise Busy("The server runs as many workflows as it can; try again shortly.", retry_after=2)
        opening = self._own(self._begin(ask), "chain-run-open")
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            # Who asked is gone; the run may be open by the time the thread is done.
            opening.add_done_callback(_stop_what_began)
            raise

    def find(self, run_id: UUID) -> Execution | None:
        """A run that goes on in this event loop."""
        run = self._running.get(run_id)
        return run if run is not None and run.here else None

    async def drain(self, seconds: float) -> None:
        """Take no more; let those under way end, then stop them."""
        self.draining = True
        until = monotonic() + seconds
        while (tasks := self._here()) and (left := until - monotonic()) > 0:
            await asyncio.wait(tasks, timeout=left)
        await self.close()

    async def close(self) -> None:
        """Stop this event loop's runs and wait a while for their ends to be written; the sweep ends what is left."""
        until = monotonic() + 2 * _PATIENCE
        while (tasks := self._here()) and (left := until - monotonic()) > 0:
            # Each time: a run that was being opened has begun meanwhile.
            for run in list(self._running.values()):
                if run.here:
                    run.stop()
            await asyncio.wait(tasks, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _here(self) -> list[asyncio.Task[Any]]:
        """The tasks of this event loop: a program's thread may run workflows in one of its own."""
        loop = asyncio.get_running_loop()
        return [task for task in list(self._tasks) if task.get_loop() is loop]

    async def _begin(self, ask: Ask) -> Execution:
        self._opening += 1
        try:
            holding = await configuration.current(ask.workspace_id)
            workflow = await holding.workflow(ask.workflow, version=ask.version)
            if workflow is None:
                what = "active version" if ask.version is None else f"version {ask.version}"
                raise NotFound(f"There is no {what} of a workflow {ask.workflow[:255]!r} in this workspace.")
            run = await database.run(runs.open_run, ask, workflow, holding)
        finally:
            self._opening -= 1
        execution = self._running[run.run_id] = Execution(ask, run, workflow, holding)
        self._own(self._lead(execution), "chain-run-lead")
        return execution

    async def _lead(self, execution: Execution) -> None:
        try:
            await execution.lead()
        finally:
            execution.stop()
            self._running.pop(execution.id, None)

    def _own(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._let_go)
        return task

    def _let_go(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        # A ChainError is the asker's answer already; anything else is a bug.
        if error is not None and not isinstance(error, ChainError):
            logger.error("action=task_failed task=%s", task.get_name(), exc_info=error)


executions = Executions()


async def execute(ask: Ask) -> AsyncGenerator[Event, None]:
    """The events of one logged run. Raises what `Executions.begin` raises, and the run's own error.

    Whoever closes it early stops the run; when that returns, its end is written.
    """
    run = await executions.begin(ask)
    try:
        async with aclosing(run.events()) as events:
            async for event in events:
                yield event
    finally:
        # A program's event loop may be over with this.
        await run.ended()


def _stop_what_began(opening: "asyncio.Task[Execution]") -> None:
    with suppress(BaseException):  # it was refused: nothing runs
        opening.result().stop()
