"""The text of unfinished answers: kept here by the process that runs them, and in Redis for everyone else.

Text goes to the buffer before it goes to any socket, so what a client shows is always a prefix of what is kept. One
flusher a process does it for all answers, like a group commit: the first text of an answer at once, then one pipeline a
tick carries everyone's text.

A buffer in Redis is `\\0` + the attempt's UTF-8 text. Answers never hold a NUL, so a key that doesn't begin with one
was lost and then appended to: readers take it for absent, and the owner, which sees a length that doesn't fit, writes
it anew.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any
from uuid import UUID

from redis.asyncio import Redis
from redis.exceptions import RedisError

from chat import protocol, wire
from chat.wire import Live
from kernel import redis
from kernel.conf import config
from kernel.text import storable

logger = logging.getLogger(__name__)

_MARK = b"\0"
#: Bytes of text in one `delta` frame at most.
FRAME_BYTES = 32_768


def buffer_key(message_id: UUID, attempt: int) -> str:
    return redis.key("answer", message_id, attempt)


def extras_key(message_id: UUID, attempt: int) -> str:
    return redis.key("answer", message_id, attempt, "extras")


def channel(session_id: UUID) -> str:
    return redis.key("session", session_id)


class LocalStream:
    """An answer that this process produces. `data[:shown]` is what sockets may have."""

    def __init__(self, session_id: UUID, message_id: UUID, attempt: int, flusher: "Flusher") -> None:
        self.session_id = session_id
        self.message_id = message_id
        self.attempt = attempt
        self.key = buffer_key(message_id, attempt)
        self.extras_key = extras_key(message_id, attempt)
        self.channel = channel(session_id)
        self.data = bytearray()
        self.shown = 0
        #: Redis holds data[:shown]; else the next flush writes the whole text.
        self.stored = False
        self.extras: dict[str, Live] = {}
        #: A process beside this one watches the session.
        self.watched = True
        self.queued = False
        #: Set while nothing waits to be flushed.
        self.settled = asyncio.Event()
        self.settled.set()
        self._pieces: list[str] = []
        self._new_extras: list[tuple[str, Live]] = []
        self._flusher = flusher

    def add_extra(self, name: str, event: protocol.Step | protocol.Sources) -> None:
        """Take a step or the sources; kept by name for those who join in the middle of the answer."""
        live = wire.extra_of(self.message_id, self.attempt, event)
        self.extras[name] = live
        self._new_extras.append((name, live))
        self._flusher.queue(self)

    def append(self, text: str) -> None:
        """Take text from the model; the flusher carries it on."""
        self._pieces.append(storable(text))
        if not self.queued:
            self._flusher.queue(self)

    @property
    def text(self) -> str:
        """Everything the model said so far, shown or not."""
        return self.data.decode() + "".join(self._pieces)

    def take(self) -> "Write":
        """Move what is new into `data`, as one write."""
        piece = "".join(self._pieces).encode()
        self._pieces.clear()
        extras, self._new_extras = self._new_extras, []
        offset = len(self.data)
        self.data += piece
        lives = [live for _, live in extras]
        for part in frames_of(piece):
            lives.append(wire.text_of(self.message_id, self.attempt, offset, part))
            offset += len(part)
        return Write(self, piece, extras, lives)


@dataclass(frozen=True, slots=True)
class Write:
    """What one tick carries for one answer."""

    stream: LocalStream
    piece: bytes
    extras: list[tuple[str, Live]]
    lives: list[Live]


class Flusher:
    """Carries text from this process's answers to Redis, to other processes and to the sockets here."""

    def __init__(
        self,
        *,
        sender: bytes,
        deliver: Callable[[UUID, Live], None],
        may_write: Callable[[], bool],
        others_watch: Callable[[UUID, int], bool],
    ) -> None:
        self.streams: dict[UUID, LocalStream] = {}
        #: False while Redis is away; answers then go on for the sockets of this process.
        self.store_up = True
        self._sender = sender
        self._deliver = deliver
        self._may_write = may_write
        self._others_watch = others_watch
        self._queue: list[LocalStream] = []
        self._wake = asyncio.Event()
        self._hurry = asyncio.Event()
        self._retry_at = 0.0
        self._later: asyncio.TimerHandle | None = None
        #: Counts the losses of the store's content: what was written before one is not kept.
        self._losses = 0
        self._task = asyncio.create_task(self._run(), name="chain-flusher")

    async def close(self) -> None:
        self._task.cancel()
        if self._later is not None:
            self._later.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    def open(self, session_id: UUID, message_id: UUID, attempt: int) -> LocalStream:
        stream = LocalStream(session_id, message_id, attempt, self)
        self.streams[message_id] = stream
        return stream

    def drop(self, stream: LocalStream) -> None:
        if self.streams.get(stream.message_id) is stream:
            del self.streams[stream.message_id]
        stream.settled.set()

    def queue(self, stream: LocalStream) -> None:
        if stream.queued:
            return
        stream.queued = True
        stream.settled.clear()
        self._queue.append(stream)
        self._wake.set()
        if not stream.data:
            self._hurry.set()

    def hurry(self) -> None:
        """Write what waits without the rest of the pause: an answer is at its end."""
        self._hurry.set()

    def store_lost(self) -> None:
        """Redis lost its content or the connection: write every open answer anew."""
        self._losses += 1
        for stream in self.streams.values():
            stream.stored = False
            # Whoever watches has to say so again, which may get lost too.
            stream.watched = True
            self.queue(stream)

    async def _run(self) -> None:
        options = config().chat
        while True:
            await self._wake.wait()
            began = monotonic()
            self._wake.clear()
            self._hurry.clear()
            batch, self._queue = self._queue, []
            if not self._may_write():
                # The leases ran out, so another process may own these answers by now: hold the text back until a
                # renewal has told which are still ours.
                self._queue = batch + self._queue
                self._wake.set()
                await asyncio.sleep(options.flush_max)
                continue
            try:
                await self._flush(batch)
            except Exception:
                # Every answer of the process goes through this task; readers that miss text look for it.
                logger.exception("action=flush_failed")
            # Under load a flush takes longer; waiting three times as long keeps it at a quarter of the process's time.
            pause = min(max(options.flush_min, 3 * (monotonic() - began)), options.flush_max)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), pause)

    async def _flush(self, batch: list[LocalStream]) -> None:
        for stream in batch:
            stream.queued = False
        # A dropped one has ended, or belongs to another process now.
        writes = [stream.take() for stream in batch if self.streams.get(stream.message_id) is stream]
        if writes:
            await self._store(writes)
            # That may have taken longer than the leases: whose the answers are is known after a renewal, and what
            # another process has settled meanwhile must not grow at our sockets.
            while not self._may_write():
                await asyncio.sleep(config().chat.flush_max)
        for write in writes:
            stream = write.stream
            if self.streams.get(stream.message_id) is not stream:
                continue
            stream.shown = len(stream.data)
            for live in write.lives:
                self._deliver(stream.session_id, live)
            if not stream.queued:
                stream.settled.set()

    async def _store(self, writes: list[Write]) -> None:
        if monotonic() < self._retry_at:
            self._leave_unstored(writes)
            return
        try:
            lengths = await self._send(redis.client(), writes)
        except (RedisError, OSError, TimeoutError) as error:
            self._failed(error, writes)
            return
        self.store_up = True
        for write, length in zip(writes, lengths, strict=True):
            if length is not None and length != len(write.stream.data) + len(_MARK):
                write.stream.stored = False
                self.queue(write.stream)

    async def _send(self, client: Redis, writes: list[Write]) -> list[int | None]:
        """One pipeline for all writes; the new length of each buffer that was appended to."""
        ttl = int(config().chat.buffer_ttl)
        losses = self._losses
        pipe = client.pipeline(transaction=False)
        readers: list[Callable[[int], None]] = []
        lengths: list[int | None] = [None] * len(writes)

        def ignore(_: int) -> None: ...

        for place, write in enumerate(writes):
            stream = write.stream
            for name, live in write.extras if stream.stored else stream.extras.items():
                pipe.hset(stream.extras_key, name, live.frame)
                pipe.expire(stream.extras_key, ttl)
                readers += [ignore, ignore]
            if write.piece and stream.stored:
                pipe.append(stream.key, write.piece)
                readers.append(partial(lengths.__setitem__, place))
            elif not stream.stored:
                pipe.set(stream.key, _MARK + bytes(stream.data), ex=ttl)
                readers.append(ignore)
            if stream.watched:
                for live in write.lives:
                    pipe.publish(stream.channel, wire.pack(self._sender, live))
                    readers.append(partial(self._note_watchers, stream))
        async with asyncio.timeout(config().redis.timeout):
            replies = await pipe.execute()
        for write in writes:
            write.stream.stored = self._losses == losses
        for read, reply in zip(readers, replies, strict=True):
            read(reply)
        return lengths

    def _note_watchers(self, stream: LocalStream, receivers: int) -> None:
        stream.watched = self._others_watch(stream.session_id, receivers)

    def _failed(self, error: BaseException, writes: list[Write]) -> None:
        if self.store_up:
            logger.warning("action=store_lost error=%s", type(error).__name__)
        self.store_up = False
        self._retry_at = monotonic() + 0.5
        self._leave_unstored(writes)

    def _leave_unstored(self, writes: list[Write]) -> None:
        """Whether a failed command was carried out is not known: the whole text is written next time, and soon."""
        for write in writes:
            write.stream.stored = False
        if self._later is None:
            pause = max(self._retry_at - monotonic(), 0) + 0.01
            self._later = asyncio.get_running_loop().call_later(pause, self._queue_unstored)

    def _queue_unstored(self) -> None:
        self._later = None
        for stream in self.streams.values():
            if not stream.stored and stream.data:
                self.queue(stream)


async def read_text(message_id: UUID, attempt: int, offset: int, limit: int) -> bytes | None:
    """Up to `limit` bytes of an answer's text from `offset`, whole code points; None if the buffer is lost or shorter.

    Raises kernel.errors.StoreUnavailable.
    """
    key = buffer_key(message_id, attempt)
    async with redis.guarded() as client, asyncio.timeout(config().redis.timeout):
        pipe = client.pipeline(transaction=False)
        pipe.getrange(key, 0, 0)
        pipe.strlen(key)
        pipe.getrange(key, offset + 1, offset + limit)
        mark, length, data = await pipe.execute()
    if mark != _MARK or length - 1 < offset:
        return None
    return whole(data)


async def read_all(message_id: UUID, attempt: int) -> str | None:
    """The whole text of an attempt; None if there is no buffer. Raises StoreUnavailable."""
    async with redis.guarded() as client, asyncio.timeout(config().redis.timeout):
        data: Any = await client.get(buffer_key(message_id, attempt))
    if data is None or not data.startswith(_MARK):
        return None
    return whole(data[1:]).decode()


async def forget(message_id: UUID, attempts: int) -> None:
    """Drop what is kept of an answer that has ended, all `attempts` of it. Raises StoreUnavailable: it expires."""
    numbers = range(1, attempts + 1)
    keys = [key(message_id, number) for number in numbers for key in (buffer_key, extras_key)]
    if not keys:
        return
    async with redis.guarded() as client, asyncio.timeout(config().redis.timeout):
        await client.unlink(*keys)


async def read_extras(message_id: UUID, attempt: int) -> list[str]:
    """The frames of an answer's steps and sources so far. Raises StoreUnavailable."""
    async with redis.guarded() as client, asyncio.timeout(config().redis.timeout):
        found: Any = await client.hgetall(extras_key(message_id, attempt))
    return [frame.decode() for frame in found.values()]


def frames_of(data: bytes) -> list[bytes]:
    """`data` in pieces that make frames of a decent size; whole code points if `data` is."""
    pieces = []
    while len(data) > FRAME_BYTES:
        piece = whole(data[:FRAME_BYTES])
        pieces.append(piece)
        data = data[len(piece) :]
    return [*pieces, data] if data else pieces


def whole(data: bytes) -> bytes:
    """`data` without a code point that is cut at its end; raises UnicodeDecodeError if it begins inside one."""
    for cut in range(min(4, len(data) + 1)):
        piece = data[: len(data) - cut]
        try:
            piece.decode()
        except UnicodeDecodeError as error:
            if error.start == 0 and cut == 0 and data[0] & 0xC0 == 0x80:
                raise
            continue
        return piece
    data.decode()
    return data
