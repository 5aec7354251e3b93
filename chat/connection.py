"""One socket's conversation with the server: each command is a verb here, transport is the caller's.

Nothing in `receive` waits: what needs the database runs in a task of the connection, sends in the order they came.
"""

import asyncio
import logging
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any
from uuid import UUID

from accounts.access import Caller
from chat import protocol, replay, turns
from chat.outbox import Outbox
from chat.protocol import BadFrame, Close
from chat.replay import Credentials
from chat.runtime import Runtime
from kernel import database
from kernel.conf import config
from kernel.errors import Busy, ChainError, NotAuthenticated, NotFound
from kernel.redaction import redact

logger = logging.getLogger(__name__)

#: Commands of one socket that may wait for the database.
_MAX_WAITING = 32
#: Commands refused in a row, or nearly so, after which a socket is closed.
_MAX_REFUSED = 200


class Connection:
    """A client on a socket. `credentials` hold the cookie only if the page's origin may use it."""

    def __init__(
        self,
        runtime: Runtime,
        *,
        wanted: str,
        credentials: Credentials,
        origin_allowed: bool,
        send: Callable[[str], Awaitable[None]],
        close: Callable[[int, str], Awaitable[None]],
    ) -> None:
        self.session_id: UUID | None = None
        self.credentials = credentials
        self.outbox = Outbox(send, local=runtime.runner.flusher.streams.get, credit=_credit())
        self._runtime = runtime
        self._wanted = wanted
        self._origin_allowed = origin_allowed
        self._close = close
        self._caller: Caller | None = None
        self._greeted = False
        #: `welcome` is out, so commands may be answered.
        self._welcomed = False
        self._refusing = False
        self._closing = False
        self._writer: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._sends: deque[_Change] = deque()
        self._sender: asyncio.Task[None] | None = None
        self._hello_timer: asyncio.TimerHandle | None = None
        self._allowance = _Allowance(config().chat.commands_per_minute)
        self._refused = 0

    @property
    def entered(self) -> bool:
        """The caller was let in."""
        return self._caller is not None

    @property
    def welcomed(self) -> bool:
        """The caller was told so."""
        return self._welcomed

    def open(self) -> None:
        """Begin; a `hello` must follow in time."""
        loop = asyncio.get_running_loop()
        self._writer = loop.create_task(self.outbox.run(), name="chain-writer")
        self._writer.add_done_callback(self._writer_ended)
        self._runtime.connections.add(self)
        self._hello_timer = loop.call_later(config().chat.hello_timeout, self._no_hello)

        if self._runtime.draining or len(self._runtime.connections) > config().chat.max_sockets_per_process:
            self._spawn(self._turn_away())

    async def leave(self) -> None:
        """The socket is gone; the turns it began go on."""
        self._runtime.connections.discard(self)
        if self._hello_timer is not None:
            self._hello_timer.cancel()
        ours = [task for task in (self._writer, *self._tasks) if task is not None]
        ours = [task for task in ours if task is not asyncio.current_task()]
        for task in ours:
            task.cancel()
        await asyncio.gather(*ours, return_exceptions=True)
        self.outbox.close()
        if self.session_id is not None:
            await self._runtime.hub.leave(self.session_id, self.outbox)

    async def close(self, code: Close) -> None:
        """Close with a typed code. What waits for the socket is dropped: the client resumes."""
        if self._closing:
            return
        self._closing = True
        if self.session_id is not None:
            await self._runtime.hub.leave(self.session_id, self.outbox)
        if self._writer is not None:
            self._writer.cancel()
        self._runtime.connections.discard(self)
        self._spawn(self._send_close(code))

    async def _send_close(self, code: Close) -> None:
        # A client that doesn't read can't be told; once it does, it is.
        with suppress(TimeoutError, OSError):
            async with asyncio.timeout(60):
                await self._close(code, code.name.lower())

    async def turn_out(self, error: ChainError) -> None:
        """The caller may be here no longer."""
        self._refuse(error, _close_code(error))

    def _refuse(self, error: ChainError, code: Close) -> None:
        """Say why, then close: the frame goes out before the close does, and nothing more is taken in."""
        if not self._refusing:
            self._error(error)
            self._refusing = True
            self._spawn(self._close_when_told(code))

    async def _turn_away(self) -> None:
        """This process takes no more sockets."""
        self._refusing = True
        self._reply(self._runtime.goodbye("restart" if self._runtime.draining else "full"))
        await self._close_when_told(Close.RESTART)

    async def _close_when_told(self, code: Close) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(config().chat.slow_seconds):
                await self.outbox.answered()
        await self.close(code)

    def _writer_ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, OSError):
            logger.error("action=writer_failed", exc_info=error)
            # Never a socket that stays open and silent: the client comes back and resumes.
            self._spawn(self.close(Close.RESTART))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)
        return task

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            logger.error("action=command_failed", exc_info=error)
            self._refuse(ChainError(), Close.RESTART)

    # In --------------------------------------------------------------------------------------------------------------

    async def receive(self, text: str | None) -> None:
        """A frame from the client; None for a binary one."""
        if self._closing or self._refusing:
            return
        if text is not None and len(text) * 4 > config().chat.max_frame_bytes:
            size = len(text.encode("utf-8", "surrogatepass"))
            if size > config().chat.max_frame_bytes:
                what = f"A frame may have {config().chat.max_frame_bytes} bytes; this one has {size}."
                self._refuse(BadFrame(what, code="too_large"), Close.TOO_LARGE)
                return
        retry_after = self._allowance.take()
        if retry_after:
            self._slow_down(retry_after, text)
            return
        self._refused = max(0, self._refused - 1)
        try:
            if text is None:
                raise BadFrame("Only text frames are understood.", code="binary_frame")
            self._do(self._parse(text))
        except BadFrame as error:
            self._error(error, error.id)

    def _slow_down(self, retry_after: float, text: str | None) -> None:
        self._refused += 1
        error = Busy("Too many commands; slow down.", code="rate_limited", retry_after=retry_after)
        if self._refused > _MAX_REFUSED:
            self._refuse(error, Close.RATE_LIMIT)
        else:
            self._error(error, protocol.id_of(text) if text else None)

    def _parse(self, text: str) -> protocol.Command:
        """A frame as one of this socket's commands. Raises BadFrame."""
        return protocol.parse(text)

    def _do(self, command: protocol.Command) -> None:
        match command:
            case protocol.Ping():
                self._reply(protocol.Pong())
            case protocol.Hello():
                if self._greeted:
                    raise BadFrame("hello was sent before on this socket.", code="already_greeted")
                self._greeted = True
                self._spawn(self._on_hello(command))
            case _ if not self._greeted:
                raise BadFrame("Send hello before anything else.", code="hello_first", id=getattr(command, "id", None))
            case protocol.Seen():
                if self.outbox.seen(command.frames):
                    # The faster we send, the more often a client must say so: that may not use up its commands.
                    self._allowance.give_back()
            case _:
                self._on_command(command)

    def _on_command(self, command: protocol.Command) -> None:
        """What this kind of socket is for."""
        match command:
            case (
                protocol.MessageSend()
                | protocol.MessageEdit()
                | protocol.MessageRegenerate()
                | protocol.MessageDelete()
            ):
                self._on_change(command)
            case protocol.TurnStop():
                self._spawn(self._on_turn_stop(command))

    def _no_hello(self) -> None:
        if not self._greeted:
            self._refuse(BadFrame("No hello came in time.", code="hello_timeout"), Close.PROTOCOL)

    async def _on_hello(self, command: protocol.Hello) -> None:
        if command.token is not None:
            self.credentials = Credentials(token=command.token)
        try:
            if not self._origin_allowed and command.token is None:
                raise NotAuthenticated(
                    "This page's origin may not use the visitor's cookie here; add it to CHAT['ALLOWED_ORIGINS'],"
                    " or send a token.",
                    code="origin_not_allowed",
                )
            await self._enter(command)
        except ChainError as error:
            self._refuse(error, _close_code(error))

    async def _enter(self, command: protocol.Hello) -> None:
        """Let the caller in and say welcome. Raises NotAuthenticated, NotFound, DatabaseUnavailable."""
        caller, session = await database.run(replay.enter, self.credentials, _uuid(self._wanted))
        self._caller, self.session_id = caller, session.id
        await self._runtime.hub.join(session.id, self.outbox)
        self._reply(
            protocol.Welcome(
                session=protocol.SessionInfo(id=session.id, title=session.title),
                you=protocol.You(id=str(caller.user_id), name=caller.name),
                seq=session.seq,
                epoch=self._runtime.hub.epoch,
                limits=self._limits(),
            )
        )
        if not self._runtime.hub.store_up:
            self._reply(protocol.Degraded(reason="The stream store is away."))
        if self._runtime.draining:
            self._reply(self._runtime.goodbye())
        self.outbox.follow(session.id, command.seq, command.streams)
        self._welcomed = True
        if self._sends:
            self._begin_sending()

    def _limits(self) -> protocol.Limits:
        options = config().chat
        return protocol.Limits(
            frame=options.max_frame_bytes,
            text=options.max_text_chars,
            credit=self.outbox.credit,
            page=options.page_rows,
        )

    def _on_change(self, command: "_Change") -> None:
        if len(self._sends) >= _MAX_WAITING:
            self._error(Busy("Too many messages at once; wait for an ack.", retry_after=1), _name_of(command))
            return
        self._sends.append(command)
        if self._welcomed:
            self._begin_sending()

    def _begin_sending(self) -> None:
        if self._sender is None or self._sender.done():
            self._sender = self._spawn(self._send_all())

    async def _send_all(self) -> None:
        """Carry the commands out one after the other, in the order they came; each gets its ack after its commit."""
        while self._sends:
            command = self._sends.popleft()
            try:
                ack = await self._carry_out(command)
            except ChainError as error:
                self._error(error, _name_of(command))
            else:
                self._reply(ack)

    async def _carry_out(self, command: "_Change") -> protocol.Ack:
        assert self._caller is not None
        assert self.session_id is not None
        runner, whose = self._runtime.runner, (self._caller, self.session_id)
        match command:
            case protocol.MessageSend():
                done = await runner.send(*whose, client_id=command.id, text=command.text, parent=command.parent)
            case protocol.MessageEdit():
                done = await runner.edit(*whose, command.message_id, client_id=command.id, text=command.text)
            case protocol.MessageRegenerate():
                done = await runner.regenerate(*whose, command.message_id, client_id=command.id)
            case protocol.MessageDelete():
                row = await runner.delete(*whose, command.message_id)
                return protocol.Ack(id=_name_of(command), seq=row.seq)
        return protocol.Ack(id=command.id, message_id=done.message_id, answer_id=done.answer_id, seq=done.seq)

    async def _on_turn_stop(self, command: protocol.TurnStop) -> None:
        name = command.id or str(command.message_id)
        if self._caller is None or self.session_id is None or not self._welcomed:
            self._error(NotFound("The session isn't open yet; wait for welcome.", code="hello_first"), name)
            return
        try:
            await database.run(turns.request_stop, self._caller, self.session_id, command.message_id)
        except ChainError as error:
            self._error(error, name)
            return
        self._runtime.runner.stop(command.message_id)
        await self._runtime.hub.send_control(stop=str(command.message_id))
        self._reply(protocol.Ack(id=name))

    # Out -------------------------------------------------------------------------------------------------------------

    def _reply(self, event: protocol.Event) -> None:
        if not self.outbox.reply(event) and not self._closing:
            self._spawn(self.close(Close.SLOW))

    def _error(self, error: ChainError, id: str | None = None) -> None:  # noqa: A002  the protocol's own word
        event = protocol.Error(code=error.code, message=redact(error.message))
        if id is not None:
            event = protocol.Error(code=event.code, message=event.message, id=id)
        if error.retry_after is not None:
            event = protocol.Error(code=event.code, message=event.message, id=event.id, retry_after=error.retry_after)
        self._reply(event)


#: What changes the conversation: carried out in order.
_Change = protocol.MessageSend | protocol.MessageEdit | protocol.MessageRegenerate | protocol.MessageDelete


def _name_of(command: _Change) -> str:
    """What its answer is called."""
    return command.id or str(command.message_id) if isinstance(command, protocol.MessageDelete) else command.id


class _Allowance:
    """A token bucket: a sixth of a minute's commands at once, refilled evenly."""

    def __init__(self, per_minute: int) -> None:
        self._rate = per_minute / 60
        self._room = max(per_minute / 6, 1.0)
        self._left = self._room
        self._at = asyncio.get_running_loop().time()

    def take(self) -> float:
        """Take one; 0 if there was one, else the seconds until there is."""
        now = asyncio.get_running_loop().time()
        self._left = min(self._room, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return round((1 - self._left) / self._rate, 3)
        self._left -= 1
        return 0.0

    def give_back(self) -> None:
        self._left += 1


def _credit() -> int | None:
    """Bytes a client may have unseen; None on a server whose `send` waits for a slow reader by itself (uvicorn)."""
    options = config().chat
    needed = options.flow_control == "credit" or (options.flow_control == "auto" and "daphne.server" in sys.modules)
    return options.credit_bytes if needed else None


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as error:
        raise NotFound("There is no such session among yours.") from error


def _close_code(error: ChainError) -> Close:
    if error.code == "origin_not_allowed" or isinstance(error, NotFound):
        return Close.FORBIDDEN
    if isinstance(error, NotAuthenticated):
        return Close.SIGN_IN
    return Close.DEPENDENCY_DOWN
