"""The frames of the workflow socket, `/ws/workflows/`; `hello`, `seen`, `ping` and `pong` are those of a chat's.

docs/execution.md describes each; a test compares them.
"""

from typing import Annotated, Any
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from chat import protocol
from chat.protocol import ClientId, Command, Event, Limits, You

Name = Annotated[str, Meta(min_length=1, max_length=255)]


class WorkflowRun(Command, tag="workflow.run", frozen=True):
    """Run a workflow; `id` is the client's own name for the run on this socket. Answered by `ack`, or `error`."""

    id: ClientId
    workflow: Name
    question: str = ""
    variables: dict[str, Any] = {}
    version: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    session: UUID | None = None
    workspace: UUID | None = None


class RunStop(Command, tag="run.stop", frozen=True):
    """Stop the run that was begun with this `id`; `run.done` follows, with the status `stopped`."""

    id: ClientId


AnyCommand = protocol.Hello | protocol.Seen | protocol.Ping | WorkflowRun | RunStop
COMMANDS: tuple[type[Command], ...] = (protocol.Hello, WorkflowRun, RunStop, protocol.Seen, protocol.Ping)


class Ready(Event, tag="welcome", frozen=True):
    """The answer to `hello`. `runs`: how many may go on at once on this socket."""

    you: You
    limits: Limits
    runs: int
    version: str = protocol.VERSION


class RunAck(Event, tag="ack", frozen=True):
    """The run is open in the log as `run_id`. For `run.stop`: it is being stopped."""

    id: str
    run_id: UUID


class RunStep(Event, tag="step", frozen=True):
    """A step started, finished or failed; `detail` has its path and its milliseconds."""

    run_id: UUID
    name: str
    state: str
    detail: dict[str, Any]


class RunSources(Event, tag="sources", frozen=True):
    """The passages that the answer uses."""

    run_id: UUID
    hits: list[dict[str, Any]]


class RunDelta(Event, tag="delta", frozen=True):
    """Text of the answer from `offset` to `end`, in UTF-8 bytes."""

    run_id: UUID
    offset: int
    end: int
    text: str


class RunOutput(Event, tag="output", frozen=True):
    """What the run came to: text, or the value that its last steps made."""

    run_id: UUID
    value: Any


class RunDone(Event, tag="run.done", frozen=True):
    """The run's end is written: `ok`, `stopped` or `failed` with `code` and `message`. `usage` sums its model calls."""

    id: str
    run_id: UUID
    status: str
    usage: dict[str, Any]
    code: str | UnsetType = UNSET
    message: str | UnsetType = UNSET


EVENTS: tuple[type[Struct], ...] = (
    Ready, RunAck, RunStep, RunSources, RunDelta, RunOutput, RunDone, protocol.Error, protocol.Goodbye, protocol.Pong,
)  # fmt: skip

_decoder: msgspec.json.Decoder[AnyCommand] = msgspec.json.Decoder(AnyCommand)


def parse(frame: str) -> AnyCommand:
    """The command in a text frame. Raises BadFrame, which says what is wrong and where."""
    return protocol.decode(frame, _decoder)
