"""The wire protocol `chain.v1`: every frame as a type, and the pure functions between text and types.

docs/protocol.md and docs/asyncapi.yaml are generated from this file (`manage.py protocol`), so the docstrings below are
also the reference that client authors read.
"""

import json
from enum import IntEnum
from typing import Annotated, Any, TypeVar
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from kernel.errors import Invalid
from kernel.text import storable

VERSION = "chain.v1"

#: The lookahead: Python's `$` alone would let a newline follow.
ClientId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:-]{1,64}$(?!\n)")]
Cursor = Annotated[int, Meta(ge=0, le=2**53 - 1)]


class Close(IntEnum):
    """Why the server closes a socket."""

    RESTART = 1012
    SIGN_IN = 4001
    FORBIDDEN = 4003
    SLOW = 4008
    TOO_LARGE = 4009
    PROTOCOL = 4010
    RATE_LIMIT = 4029
    DEPENDENCY_DOWN = 4503


CLOSE_MEANINGS = {
    Close.RESTART: "The server restarts, is full or failed; reconnect after the time that `goodbye` named, or shortly.",
    Close.SIGN_IN: "No valid sign-in or token; sign in, or get a new token.",
    Close.FORBIDDEN: "No such session among the caller's, or the page's origin is not allowed; a retry won't help.",
    Close.SLOW: "The client stopped reading or acknowledging; reconnect and resume.",
    Close.TOO_LARGE: "A frame was over the limit; don't send it again as it is.",
    Close.PROTOCOL: "No `hello` came in time.",
    Close.RATE_LIMIT: "Far too many commands; reconnect after a minute.",
    Close.DEPENDENCY_DOWN: "The database can't be reached; reconnect shortly.",
}


class Command(Struct, forbid_unknown_fields=True, tag_field="type", frozen=True):
    """A frame from the client."""


class Hello(Command, tag="hello", frozen=True):
    """Where I left off: the last `seq`, and for each unfinished answer the `end` of its last delta. New: 0 and {}.

    `token` is for clients without a cookie. Answered by `welcome`, then what was missed, then live.
    """

    seq: Cursor = 0
    streams: dict[UUID, Cursor] = {}
    token: str | None = None


class MessageSend(Command, tag="message.send", frozen=True):
    """A new message. `id` is the client's own: a repeat gets the same ack and no second message.

    It follows the newest message, or the answer `parent`: then the conversation goes on from there.
    """

    id: ClientId
    text: str
    parent: UUID | None = None


class MessageEdit(Command, tag="message.edit", frozen=True):
    """Put another message beside the user's `message_id`, and answer it. Its `id`, ack and repeats are as a send's.

    The old one and what follows it stay as they are, on a branch of their own.
    """

    id: ClientId
    message_id: UUID
    text: str


class MessageRegenerate(Command, tag="message.regenerate", frozen=True):
    """Put another answer beside the answer `message_id`. `id` is the client's own: a repeat makes no further one.

    The ack names the question as `message_id`, the new answer as `answer_id`.
    """

    id: ClientId
    message_id: UUID


class MessageDelete(Command, tag="message.delete", frozen=True):
    """Empty a message of either role, for good: its row comes again without text, with `deleted`. A repeat is harmless.

    What follows it stays. Acknowledged under `id`, or without one under `message_id`.
    """

    message_id: UUID
    id: ClientId | None = None


class TurnStop(Command, tag="turn.stop", frozen=True):
    """Stop an answer, wherever it runs; its text so far stays. `message_id` is the answer's."""

    message_id: UUID
    id: ClientId | None = None


class Seen(Command, tag="seen", frozen=True):
    """How far I have got; not answered.

    Needed where `welcome.limits.credit` is a number: the server stops sending when that many bytes are not yet seen,
    and closes with 4008 if that lasts. Send it at the latest when a quarter of the credit has arrived. `frames` counts
    the frames received on this socket.
    """

    streams: dict[UUID, Cursor] = {}
    frames: Cursor | None = None


class Ping(Command, tag="ping", frozen=True):
    """Are you there? Answered by `pong`."""


AnyCommand = Hello | MessageSend | MessageEdit | MessageRegenerate | MessageDelete | TurnStop | Seen | Ping
COMMANDS: tuple[type[Command], ...] = (
    Hello,
    MessageSend,
    MessageEdit,
    MessageRegenerate,
    MessageDelete,
    TurnStop,
    Seen,
    Ping,
)


class Event(Struct, tag_field="type", frozen=True):
    """A frame from the server."""


class Limits(Struct, frozen=True):
    """`frame` in bytes, `text` in characters, `credit` in bytes or null where `seen` isn't needed."""

    frame: int
    text: int
    credit: int | None
    page: int


class SessionInfo(Struct, frozen=True):
    id: UUID
    title: str


class You(Struct, frozen=True):
    id: str
    name: str


class Welcome(Event, tag="welcome", frozen=True):
    """The answer to `hello`. `epoch` names the stream store's lifetime: it changes when its content was lost."""

    session: SessionInfo
    you: You
    seq: int
    epoch: str
    limits: Limits
    version: str = VERSION


class Ack(Event, tag="ack", frozen=True):
    """The command with this `id` is done. For a message: it is committed, as `message_id`; `answer_id` will follow."""

    id: str
    message_id: UUID | UnsetType = UNSET
    answer_id: UUID | UnsetType = UNSET
    seq: int | UnsetType = UNSET


class Error(Event, tag="error", frozen=True):
    """A command failed (its `id`, if it had one), or something the client should know. Codes: see the table."""

    code: str
    message: str
    id: str | UnsetType = UNSET
    retry_after: float | UnsetType = UNSET


class Message(Struct, frozen=True):
    """A row of the conversation, whole.

    `role`: USER, ASSISTANT or SYSTEM. `status`: pending, complete, stopped, failed or interrupted. `parent`: what a
    question follows (null at the beginning), an answer's question. People see the branch from the message with the
    highest `order` up through the parents; a deleted message is part of it and is not shown. `sources` are the hits of
    the `sources` frame, each with `cited`: whether the text bears its mark.
    """

    id: UUID
    role: str
    content: str
    status: str
    order: int
    seq: int
    parent: UUID | None
    client_id: str | None
    error_code: str
    sources: list[dict[str, Any]]
    created_at: str
    updated_at: str
    deleted: bool


class MessageEvent(Event, tag="message", frozen=True):
    """The durable state of a row, whole: insert or replace by id. A pending answer's text starts anew at offset 0."""

    seq: int
    message: Message


class Delta(Event, tag="delta", frozen=True):
    """Text of an answer from `offset` to `end`, in UTF-8 bytes: the next delta's `offset` is this `end`."""

    message_id: UUID
    offset: int
    end: int
    text: str


class Step(Event, tag="step", frozen=True):
    """Progress of an answer: `queued` (detail.place), or a workflow step that started or finished."""

    message_id: UUID
    name: str
    state: str
    detail: dict[str, Any] | UnsetType = UNSET


class Sources(Event, tag="sources", frozen=True):
    """The passages an answer uses, for citations: hit `n` is mark `[n]` in the text."""

    message_id: UUID
    hits: list[dict[str, Any]]


class Degraded(Event, tag="degraded", frozen=True):
    """The stream store is away: chats go on, but what other server processes produce may arrive late."""

    reason: str


class Recovered(Event, tag="recovered", frozen=True):
    """The stream store is back, and what was missed has been or is being sent."""


class Reset(Event, tag="reset", frozen=True):
    """Your cursor can't be served: drop what you hold; the first page follows as if you had sent seq 0."""

    reason: str


class Goodbye(Event, tag="goodbye", frozen=True):
    """The server will close; reconnect after so many seconds. `reason`: restart, or full."""

    reason: str
    reconnect_after: float


class Pong(Event, tag="pong", frozen=True):
    """Yes."""


EVENTS: tuple[type[Event], ...] = (
    Welcome,
    Ack,
    Error,
    MessageEvent,
    Delta,
    Step,
    Sources,
    Degraded,
    Recovered,
    Reset,
    Goodbye,
    Pong,
)

#: What an `error` frame or a failed message's `error_code` may say, and what to do.
ERROR_CODES = {
    "invalid_frame": "The frame is not a known command with the right fields; mend it.",
    "binary_frame": "Only text frames are understood.",
    "too_large": "The frame or text is over the limit named in `welcome.limits`.",
    "empty_text": "A message needs some text.",
    "hello_first": "Send `hello` before anything else.",
    "already_greeted": "`hello` was sent before on this socket.",
    "hello_timeout": "No `hello` came in time.",
    "sign_in_required": "Sign in, or send a valid token in `hello`.",
    "origin_not_allowed": "This page's origin may not use the visitor's cookie here.",
    "not_found": "There is no such object among yours.",
    "id_conflict": "This `id` was used before with another text; choose a new one.",
    "still_running": "The answer is still being written; stop it first, or wait for its end.",
    "forbidden": "You may not do this.",
    "busy": "A bound was reached; try again after `retry_after`.",
    "rate_limited": "Too many commands; try again after `retry_after`.",
    "draining": "The server is going away; reconnect and send again.",
    "database_unavailable": "Nothing was saved; send again after `retry_after`.",
    "store_unavailable": "The stream store is away; try again after `retry_after`.",
    "provider_refused": "The model's provider refused the request.",
    "context_exceeded": "This is too long for the model; shorten the message, or use a model with a larger window.",
    "provider_rate_limited": "The model's provider asks to slow down.",
    "provider_unavailable": "The model's provider can't be reached or failed.",
    "provider_timeout": "The model's provider took too long; what had come is kept.",
    "provider_truncated": "The model's answer broke off; what had come is kept.",
    "provider_bad_response": "The model's provider sent something that is not understood.",
    "provider_misconfigured": "The model's provider is not set up rightly; tell the operator.",
    "conflict": "This collides with something that exists.",
    "not_text": "A document is not readable text; the message says which.",
    "unsupported_type": "A document is of a kind that is not read, or not what its name says; the message says which.",
    "encrypted": "A document is protected by a password; save it without one.",
    "no_text": "A document has no text to index, as a scan; the message says which.",
    "parse_timeout": "Reading a document takes longer than it may; split it.",
    "parse_failed": "A document is damaged; the message says which.",
    "worker_died": "Each worker that tried a document ended on the way; split it, or try again.",
    "url_refused": "A document is not fetched from this address; the message says why.",
    "fetch_failed": "A document's address could not be read; try again after `retry_after`.",
    "collection_changed": "A collection's vectors were made anew meanwhile; try again after `retry_after`.",
    "empty_summary": "A conversation's summary was not made, as the model wrote none; it is tried again.",
    "workflow_invalid": "The session's workflow can't be run; tell its author.",
    "workflow_timeout": "The workflow took longer than it may; what had come is kept.",
    "too_many_calls": "The workflow asks models more often than it may; tell its author.",
    "prompt_invalid": "The session's prompt can't be filled in; tell its author.",
    "output_invalid": "The answer never took the form that the workflow asks for; try again.",
    "tool_failed": "A tool that the workflow calls failed or took too long.",
    "question_refused": "A rule of this workspace refuses the message; the message says why.",
    "validator_failed": "A validator failed or took too long, so nothing was let through; try again shortly.",
    "answer_refused": "A rule of this workspace held the answer back.",
    "budget_exceeded": "A budget of this workspace is used up; try again after `retry_after`.",
    "price_missing": "A money budget can't be kept for a model without a price; tell the operator.",
    "embedding_mismatch": "The documents were indexed with another embedding model; tell the operator.",
    "misconfigured": "The server is not set up for this; tell the operator.",
    "attempts_exhausted": "The answer was begun several times and never finished; try again.",
    "internal": "Something went wrong on the server; it was logged.",
}

_decoder: msgspec.json.Decoder[AnyCommand] = msgspec.json.Decoder(AnyCommand)
_encoder = msgspec.json.Encoder()
C = TypeVar("C")


class BadFrame(Invalid):
    """A frame that is not a command; `id` is the frame's own where it could be read."""

    code = "invalid_frame"

    def __init__(self, message: str, *, code: str = "", id: str | None = None) -> None:  # noqa: A002  protocol's word
        super().__init__(message, code=code)
        self.id = id


def parse(frame: str) -> AnyCommand:
    """The command in a text frame. Raises BadFrame, which says what is wrong and where."""
    return decode(frame, _decoder)


def decode(frame: str, decoder: msgspec.json.Decoder[C]) -> C:
    """`parse` for the commands of any of our sockets."""
    try:
        return decoder.decode(_without_lone_surrogates(frame))
    except (msgspec.ValidationError, msgspec.DecodeError, RecursionError, UnicodeError) as error:
        said = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        # A field's name comes back in the text, and may be as long as a frame.
        raise BadFrame(f"Not a command of {VERSION}: {said[:300]}", id=id_of(frame)) from error


def _without_lone_surrogates(frame: str) -> str:
    """A browser's JSON escapes half an emoji as a lone surrogate, which no UTF-8 text can hold.

    U+FFFD takes its place.
    """
    if "\\ud" not in frame and "\\uD" not in frame:
        return frame
    try:
        return storable(json.dumps(json.loads(frame), ensure_ascii=False))
    except ValueError:
        return frame


class _OnlyId(Struct):
    id: ClientId | None = None


def id_of(frame: str) -> str | None:
    """The `id` of a frame that may be anything, for the answer to a command that is not carried out."""
    try:
        return msgspec.json.decode(frame, type=_OnlyId).id
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return None


def encode(event: Event) -> str:
    """The text frame of an event."""
    return _encoder.encode(event).decode()
