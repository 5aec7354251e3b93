"""A socket that runs workflows: several side by side, each as long as the socket is there."""

from uuid import UUID

import msgspec

from accounts.access import Caller
from chat import protocol, replay, workflow_protocol
from chat.connection import Connection
from chat.workflow_protocol import (
    Ready,
    RunAck,
    RunDelta,
    RunDone,
    RunOutput,
    RunSources,
    RunStep,
    RunStop,
    WorkflowRun,
)  # fmt: skip
from kernel import database
from kernel.errors import Busy, ChainError, Conflict, NotFound
from llm import runs
from llm.events import Event, Output, Sources, Step, Text
from llm.execution import Execution, executions

#: Runs of one socket at once.
MAX_RUNS = 8
#: Events of a run that are queued before the socket must have taken them.
_BATCH = 32


class WorkflowConnection(Connection):
    """What is the same for all sockets is in Connection: origins, hello, bounds, closes, the drain."""

    def _parse(self, text: str) -> protocol.Command:
        return workflow_protocol.parse(text)

    async def _enter(self, command: protocol.Hello) -> None:
        self._running: dict[str, Execution | None] = {}
        self._caller = await database.run(replay.identify, self.credentials)
        you = protocol.You(id=str(self._caller.user_id), name=self._caller.name)
        self._reply(Ready(you=you, limits=self._limits(), runs=MAX_RUNS))
        if self._runtime.draining:
            self._reply(self._runtime.goodbye())
        self._welcomed = True

    def _on_command(self, command: protocol.Command) -> None:
        if self._caller is None:
            raise protocol.BadFrame("Wait for welcome.", code="hello_first", id=getattr(command, "id", None))
        match command:
            case WorkflowRun():
                self._begin(command, self._caller)
            case RunStop():
                self._stop(command)

    def _begin(self, command: WorkflowRun, caller: Caller) -> None:
        if command.id in self._running:
            self._error(Conflict("A run of this id goes on here; choose another.", code="id_conflict"), command.id)
        elif len(self._running) >= MAX_RUNS:
            self._error(Busy(f"{MAX_RUNS} runs go on on this socket; wait for one.", retry_after=1), command.id)
        else:
            self._running[command.id] = None
            self._spawn(self._run(command, caller))

    def _stop(self, command: RunStop) -> None:
        run = self._running.get(command.id)
        if run is None:
            self._error(NotFound("No run of this id goes on on this socket."), command.id)
            return
        self._reply(RunAck(id=command.id, run_id=run.id))
        run.stop()

    async def _run(self, command: WorkflowRun, caller: Caller) -> None:
        """See a run through; with the socket ends this task, and with it the run."""
        asked = {
            field: getattr(command, field) for field in ("question", "variables", "version", "session", "workspace")
        }
        try:
            run = await executions.begin(await database.run(runs.ask_for, caller, command.workflow, **asked))
            try:
                self._running[command.id] = run
                self._reply(RunAck(id=command.id, run_id=run.id))
                await self._tell(run)
                self._done(command.id, run)
            finally:
                run.stop()
        except ChainError as error:
            self._error(error, command.id)
        finally:
            del self._running[command.id]

    async def _tell(self, run: Execution) -> None:
        offset, queued = 0, 0
        while await run.more():
            event = run.take()
            if event is None:
                return
            frame = _frame(run.id, event, offset)
            if frame is None:
                continue
            if isinstance(frame, RunDelta):
                offset = frame.end
            self._reply(frame)
            queued += 1
            if queued >= _BATCH:
                # A slow reader holds the run up, not our memory; one that stalls is closed (Runtime).
                await self.outbox.answered()
                queued = 0

    def _done(self, id: str, run: Execution) -> None:  # noqa: A002  the protocol's own word
        usage = msgspec.to_builtins(run.usage)
        done = RunDone(id=id, run_id=run.id, status=str(run.status), usage=usage)
        if run.failure is not None:
            done = msgspec.structs.replace(done, **run.failure)
        self._reply(done)


def _frame(run_id: UUID, event: Event, offset: int) -> protocol.Event | None:
    """What clients see of an event."""
    match event:
        case Text():
            end = offset + len(event.text.encode())
            return RunDelta(run_id=run_id, offset=offset, end=end, text=event.text)
        case Step():
            return RunStep(run_id=run_id, name=event.name, state=event.state, detail=event.detail)
        case Sources():
            return RunSources(run_id=run_id, hits=list(event.hits))
        case Output():
            return RunOutput(run_id=run_id, value=event.value)
    return None
