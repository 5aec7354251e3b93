"""A client of the protocol `chain.v1` for Python programs: one conversation, over as many sockets as it takes.

    client = ChatClient(url, session_id, token=token)
    async with aclosing(client.events()) as events:
        await client.send("How long is the warranty?")
        async for happened in events: ...

It needs neither Django nor a database. Reading `events()` drives it: a connection that is lost is resumed where it
broke off, and a command is repeated under its own id until the server has answered it.

ClientError
├── Unreachable       no chat server answers at the address, or not any more
├── NotSignedIn       the token is not valid, or has expired
├── NotYours          there is no such conversation among the caller's
├── CommandRefused    what was asked for can't be done; `code` says why
└── NotUnderstood     the server speaks another language, or a later version of this one
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from time import monotonic
from typing import Literal
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from chat import protocol
from chat.protocol import Close
from chat.transcript import Gap, Transcript

#: Seconds for a server to accept a connection and to answer `hello`.
_ANSWER_WITHIN = 10.0
#: Seconds between tries, doubled from the first to the second.
_BACKOFF = (0.2, 10.0)
#: A connection that holds so long was a good one: the next loss is tried again at once.
_STABLE_AFTER = 3.0
#: Seconds that a close code asks for at least.
_LEAST_WAIT: dict[int, float] = {Close.RATE_LIMIT: 60.0, Close.DEPENDENCY_DOWN: 1.0, Close.PROTOCOL: 1.0}
#: A row holds a whole answer; this bounds what a broken server can make us keep.
_MAX_FRAME = 16 * 2**20

AnyEvent = (
    protocol.Welcome
    | protocol.Ack
    | protocol.Error
    | protocol.MessageEvent
    | protocol.Delta
    | protocol.Step
    | protocol.Sources
    | protocol.Degraded
    | protocol.Recovered
    | protocol.Reset
    | protocol.Goodbye
    | protocol.Pong
)
_decoder: msgspec.json.Decoder[AnyEvent] = msgspec.json.Decoder(AnyEvent)
_encoder = msgspec.json.Encoder()
#: The first half of each meaning says what happened, the second what a program does about it.
_MEANINGS = {int(code): meaning.rstrip(".").split(";")[0] for code, meaning in protocol.CLOSE_MEANINGS.items()}
_KNOWN = {event.__struct_config__.tag for event in protocol.EVENTS}


class ClientError(Exception):
    """Why the client can't go on. `message` is for people, `code` for programs."""

    code = "client_error"

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code


class Unreachable(ClientError):
    code = "unreachable"


class NotSignedIn(ClientError):
    code = "sign_in_required"


class NotYours(ClientError):
    code = "not_found"


class CommandRefused(ClientError):
    code = "refused"


class NotUnderstood(ClientError):
    code = "not_understood"


@dataclass(frozen=True)
class Received:
    """A frame, exactly as it came; `event` is None where its type is a later version's."""

    raw: str
    event: AnyEvent | None


@dataclass(frozen=True)
class Lost:
    """The connection is gone; the next try is in `wait` seconds."""

    reason: str
    wait: float


@dataclass
class _Unanswered:
    """A command without an ack. `due`: when to send it once more on this socket."""

    command: protocol.MessageSend | protocol.TurnStop
    since: float
    due: float | None = None


class ChatClient:
    """One person at one conversation.

    `patience`: seconds without a connection, or without an ack, after which it gives up. `renew` makes a new token when
    the old one has expired.
    """

    def __init__(
        self,
        url: str,
        session_id: UUID,
        *,
        token: str,
        renew: Callable[[], Awaitable[str]] | None = None,
        patience: float = 60.0,
    ) -> None:
        self.transcript = Transcript()
        self._url = url
        self._socket_url = f"{_socket_base(url)}/ws/chat/{session_id}/"
        self._token = token
        self._renew = renew
        self._patience = patience
        self._unanswered: dict[str, _Unanswered] = {}
        self._socket: ClientConnection | None = None
        self._limits: protocol.Limits | None = None
        self._welcomed_at: float | None = None
        self._alone_since = monotonic()
        self._ever_welcomed = False
        self._tries = 0
        self._refusal: protocol.Error | None = None
        self._come_back_at = 0.0
        self._frames = 0
        self._unseen_bytes = 0

    async def send(self, text: str, *, id: str = "") -> str:  # noqa: A002  the protocol's own word
        """Send a message, now or as soon as there is a connection; its id, which the ack will have."""
        command = protocol.MessageSend(id=id or str(uuid4()), text=text)
        await self._command(command.id, command)
        return command.id

    async def stop(self, answer_id: UUID) -> str:
        """Stop an answer; the command's id."""
        name = str(uuid4())
        await self._command(name, protocol.TurnStop(message_id=answer_id, id=name))
        return name

    def awaits(self, command_id: str) -> bool:
        """Whether a command is still to be answered. After an `error` with its id: whether it is tried again."""
        return command_id in self._unanswered

    async def events(self) -> AsyncGenerator[Received | Lost, None]:
        """Every frame the server sends, and every loss of a connection; without end. Raises ClientError."""
        self._alone_since = monotonic()
        while True:
            try:
                async with await self._connect() as socket:
                    self._begin(socket)
                    await socket.send(_encode(self.transcript.hello(self._token)))
                    while True:
                        received = await self._next(socket)
                        if received is not None:
                            yield received
                            await self._tell_seen(socket)
            except (OSError, WebSocketException, Gap) as error:  # a TimeoutError is an OSError
                lost = await self._lost(error)
            finally:
                self._socket = self._welcomed_at = None
            yield lost
            await asyncio.sleep(lost.wait)

    # Out -------------------------------------------------------------------------------------------------------------

    async def _command(self, name: str, command: protocol.MessageSend | protocol.TurnStop) -> None:
        self._unanswered[name] = _Unanswered(command, monotonic())
        if self._socket is not None and self._welcomed_at is not None:
            try:
                await self._transmit(self._socket, name)
            except ConnectionClosed:
                return  # the next connection repeats it

    async def _transmit(self, socket: ClientConnection, name: str) -> None:
        waiting = self._unanswered[name]
        waiting.due = None
        frame = _encode(waiting.command)
        limit = self._limits.frame if self._limits else None
        if limit is not None and len(frame.encode()) > limit:
            del self._unanswered[name]
            raise CommandRefused(f"The message is too large: the server takes {limit} bytes.", code="too_large")
        await socket.send(frame)

    async def _transmit_all(self, socket: ClientConnection, *, due_by: float | None = None) -> None:
        for name, waiting in list(self._unanswered.items()):
            if due_by is None or (waiting.due is not None and waiting.due <= due_by):
                await self._transmit(socket, name)

    async def _tell_seen(self, socket: ClientConnection) -> None:
        """Flow control, where the server asks for it."""
        credit = self._limits.credit if self._limits else None
        if credit is not None and self._unseen_bytes > credit // 4:
            self._unseen_bytes = 0
            await socket.send(_encode(protocol.Seen(frames=self._frames)))

    # In --------------------------------------------------------------------------------------------------------------

    async def _next(self, socket: ClientConnection) -> Received | None:
        """The next frame; None where it was time to send something once more."""
        due = min((waiting.due for waiting in self._unanswered.values() if waiting.due is not None), default=None)
        wait = _ANSWER_WITHIN if self._welcomed_at is None else None if due is None else max(0.0, due - monotonic())
        try:
            async with asyncio.timeout(wait):
                raw = await socket.recv()
        except TimeoutError:
            if self._welcomed_at is None:
                raise
            await self._transmit_all(socket, due_by=monotonic())
            return None
        received = _received(raw)
        self._frames += 1
        self._unseen_bytes += len(received.raw.encode())
        await self._take(socket, received.event)
        return received

    async def _take(self, socket: ClientConnection, event: AnyEvent | None) -> None:
        self.transcript.apply(event)
        match event:
            case protocol.Welcome():
                self._limits = event.limits
                self._welcomed_at = monotonic()
                self._ever_welcomed = True
                await self._transmit_all(socket)
            case protocol.Ack():
                self._unanswered.pop(event.id, None)
            case protocol.Error():
                self._refused(event)
            case protocol.Goodbye():
                # Until the close we stay: answers under way may still finish here.
                self._come_back_at = monotonic() + event.reconnect_after

    def _refused(self, error: protocol.Error) -> None:
        if not isinstance(error.id, str):
            self._refusal = error
            return
        waiting = self._unanswered.get(error.id)
        if waiting is None:
            return
        if isinstance(error.retry_after, msgspec.UnsetType) or monotonic() - waiting.since > self._patience:
            del self._unanswered[error.id]
        else:
            waiting.due = monotonic() + error.retry_after + random.uniform(0, 0.25)  # noqa: S311  no secret

    # Connections -----------------------------------------------------------------------------------------------------

    async def _connect(self) -> ClientConnection:
        # A proxy of the environment can't reach this machine's own server.
        proxy: Literal[True] | None = None if is_loopback(self._socket_url) else True
        return await _Connect(
            self._socket_url,
            proxy=proxy,
            compression=None,
            max_size=_MAX_FRAME,
            open_timeout=_ANSWER_WITHIN,
            close_timeout=1,
        )

    def _begin(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._frames = self._unseen_bytes = 0
        for waiting in self._unanswered.values():
            waiting.due = None

    async def _lost(self, error: Exception) -> Lost:
        """When to come back. Raises ClientError when there is nothing to come back to."""
        now = monotonic()
        if self._welcomed_at is not None:
            self._alone_since = now
            if now - self._welcomed_at > _STABLE_AFTER:
                self._tries = 0
        code = error.rcvd.code if isinstance(error, ConnectionClosed) and error.rcvd else None
        reason = self._refusal.message.rstrip(".") if self._refusal else reason_of(error)
        await self._end_if_final(code, reason)
        # Where no server was met, none is awaited; one that asked us to come back is.
        stranger = not self._ever_welcomed and not isinstance(error, ConnectionClosed | Gap)
        if stranger or now - self._alone_since > self._patience:
            raise Unreachable(f"No chat server answers at {self._url}: {reason}.")
        lost = Lost(reason, max(self._backoff(), self._least_wait(code), self._come_back_at - now))
        self._refusal, self._come_back_at = None, 0.0
        return lost

    async def _end_if_final(self, code: int | None, reason: str) -> None:
        said = self._refusal.code if self._refusal else ""
        if code == Close.SIGN_IN:
            if self._renew is None or self._welcomed_at is None:
                raise NotSignedIn(reason, code=said)
            self._token = await self._renew()
        elif code == Close.FORBIDDEN:
            raise NotYours(reason, code=said)
        elif code == Close.TOO_LARGE:
            raise CommandRefused(reason, code=said or "too_large")

    def _backoff(self) -> float:
        first, most = _BACKOFF
        wait: float = min(most, first * 2**self._tries)
        self._tries = min(self._tries + 1, 16)
        return wait * random.uniform(0.5, 1)  # noqa: S311  spreads clients, guards nothing

    def _least_wait(self, code: int | None) -> float:
        asked = self._refusal.retry_after if self._refusal else 0.0
        return max(asked if isinstance(asked, float | int) else 0.0, _LEAST_WAIT.get(code, 0.0) if code else 0.0)


class _Connect(connect):
    """No redirects: the token goes to the address that was named, and nowhere else."""

    def process_redirect(self, exc: Exception) -> Exception:
        return exc


class _Tag(msgspec.Struct):
    type: str


def _received(raw: str | bytes) -> Received:
    """Raises NotUnderstood for what can't be a frame of ours."""
    try:
        if not isinstance(raw, str):
            raise NotUnderstood("The server sent a binary frame.")
        known = msgspec.json.decode(raw, type=_Tag).type in _KNOWN
        return Received(raw, _decoder.decode(raw) if known else None)
    except msgspec.MsgspecError as error:
        raise NotUnderstood(f"The server sent a frame that is not {protocol.VERSION}: {error}") from error


def _encode(command: protocol.Command) -> str:
    return _encoder.encode(command).decode()


def reason_of(error: Exception) -> str:
    """Few words: what people are told of a failed connection."""
    if isinstance(error, TimeoutError):
        return "it doesn't answer in time"
    if isinstance(error, InvalidStatus):
        return f"it answers with HTTP {error.response.status_code}"
    if isinstance(error, ConnectionClosed | Gap):
        code = error.rcvd.code if isinstance(error, ConnectionClosed) and error.rcvd else None
        return _MEANINGS.get(code, f"it closed with code {code}") if code else "it was cut"
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(said).split("\n")[0]


def _socket_base(url: str) -> str:
    parts = urlsplit(url)
    return f"{'wss' if parts.scheme == 'https' else 'ws'}://{parts.netloc}{parts.path.rstrip('/')}"


def is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")
