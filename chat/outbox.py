"""One socket's way out: a writer task that awaits each send, and knows what it has sent.

Live events wait here in a small bounded queue. A socket that can't keep up loses the queue, not the content: it is
marked as behind, and when it can be written to again it reads the rows and the text that it misses from where it left
off. Joining, resuming and repairing are this same step.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import monotonic
from uuid import UUID

from chat import protocol, replay, streams, wire
from chat.models import ChatHistory
from chat.protocol import encode
from chat.streams import LocalStream
from chat.wire import Kind, Live
from kernel import database
from kernel.conf import config
from kernel.errors import ChainError, StoreUnavailable


@dataclass(slots=True)
class StreamCursor:
    """How far an unfinished answer was sent. `attempt` 0: not known yet."""

    attempt: int
    offset: int
    heard_at: float
    #: Since when the text at `offset` can't be found; its owner may be writing it anew.
    lost_at: float | None = None


class Outbox:
    """What waits for one socket, and its cursor in the session."""

    def __init__(
        self,
        send: Callable[[str], Awaitable[None]],
        *,
        local: Callable[[UUID], LocalStream | None],
        credit: int | None,
    ) -> None:
        self.session_id: UUID | None = None
        self.seq = 0
        self.cursors: dict[UUID, StreamCursor] = {}
        self.behind = False
        #: When the send under way began; what tells a stalled client.
        self.sending_since: float | None = None
        self.credit = credit
        self._send = send
        self._local = local
        self._replies: deque[str] = deque()
        self._events: deque[Live] = deque()
        self._event_bytes = 0
        self._wake = asyncio.Event()
        self._resume: dict[UUID, int] | None = None
        self._frames_sent = 0
        self._unseen: deque[int] = deque()
        self._unseen_bytes = 0
        self._seen = asyncio.Event()
        self._retry: asyncio.TimerHandle | None = None

    def close(self) -> None:
        """Forget everything that waits."""
        self._events.clear()
        self._replies.clear()
        if self._retry is not None:
            self._retry.cancel()

    def silent(self, since: float) -> list[tuple[UUID, StreamCursor]]:
        """The unfinished answers of which nothing was heard since then."""
        return [(message_id, cursor) for message_id, cursor in self.cursors.items() if cursor.heard_at < since]

    def follow(self, session_id: UUID, seq: int, offsets: dict[UUID, int]) -> None:
        """Begin where the client left off; the writer first sends what it missed."""
        self.session_id = session_id
        self.seq = seq
        self._resume = offsets
        self.fall_behind()

    def reply(self, event: protocol.Event) -> bool:
        """Queue an answer to a command; False when the client takes none of them."""
        if len(self._replies) >= config().chat.outbox_frames * 4:
            return False
        self._replies.append(encode(event))
        self._wake.set()
        return True

    def offer(self, live: Live) -> None:
        """Queue a live event, or fall behind if there is no room; before `follow` there is nothing to be late for."""
        if self.session_id is None:
            return
        options = config().chat
        if len(self._events) >= options.outbox_frames or self._event_bytes >= options.outbox_bytes:
            self.fall_behind()
            return
        self._events.append(live)
        self._event_bytes += len(live.frame)
        self._wake.set()

    def fall_behind(self) -> None:
        """Forget the queue; the writer reads what is missing as soon as it can write."""
        self._events.clear()
        self._event_bytes = 0
        self.behind = True
        self._wake.set()

    async def answered(self) -> None:
        """Wait until every queued reply has been sent."""
        while self._replies or self.sending_since is not None:
            await asyncio.sleep(0.01)

    def seen(self, frames: int | None) -> bool:
        """The client has received so many frames on this socket; whether that was news."""
        before = len(self._unseen)
        if frames is not None and self.credit is not None:
            while self._unseen and self._frames_sent - len(self._unseen) < frames:
                self._unseen_bytes -= self._unseen.popleft()
        if len(self._unseen) == before:
            return False
        self._seen.set()
        return True

    async def run(self) -> None:
        """The writer: replies first, then what was missed, then live events."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._replies or self.behind or self._events:
                if self._replies:
                    await self._put(self._replies.popleft())
                elif self.behind and self.session_id is not None:
                    await self._repair(self.session_id)
                elif self._events:
                    live = self._events.popleft()
                    self._event_bytes -= len(live.frame)
                    await self._write(live)
                else:
                    break

    async def _put(self, frame: str) -> None:
        self.sending_since = monotonic()
        if self.credit is not None:
            await self._await_credit(len(frame.encode()))
        await self._send(frame)
        self.sending_since = None

    async def _await_credit(self, size: int) -> None:
        """On a server whose send never waits, wait until the client has seen enough of what was sent."""
        assert self.credit is not None
        while self._unseen_bytes > self.credit:
            self._seen.clear()
            await self._seen.wait()
        self._frames_sent += 1
        self._unseen.append(size)
        self._unseen_bytes += size

    async def _write(self, live: Live) -> None:
        if live.kind is Kind.ROW:
            await self._write_row(live)
            return
        cursor = self.cursors.get(live.message_id)
        if cursor is None or live.attempt < cursor.attempt:
            return
        if live.attempt > cursor.attempt:
            if cursor.offset:
                self.fall_behind()  # a further attempt's row must come first; it was missed
                return
            cursor.attempt = live.attempt
        cursor.heard_at = monotonic()
        if live.kind is Kind.EXTRA:
            await self._put(live.frame)
        elif live.offset == cursor.offset:
            await self._put(live.frame)
            cursor.offset = live.end
        elif live.end > cursor.offset:
            await self._send_range(live.message_id, cursor)

    async def _write_row(self, live: Live) -> None:
        if live.end <= self.seq:
            return
        if live.end > self.seq + 1:
            self.fall_behind()
            return
        await self._put(live.frame)
        self._note_row(live)

    def _note_row(self, live: Live) -> None:
        self.seq = live.end
        if live.offset:
            self.cursors[live.message_id] = StreamCursor(live.attempt, 0, monotonic())
        else:
            self.cursors.pop(live.message_id, None)

    async def _repair(self, session_id: UUID) -> None:
        self.behind = False
        try:
            await self._catch_up(session_id)
        except ChainError:
            # The database is away. Nothing is lost: look again in a moment, and answer commands meanwhile.
            self._look_again()

    def _look_again(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
        self._retry = asyncio.get_running_loop().call_later(config().chat.repair_seconds, self.fall_behind)

    async def _catch_up(self, session_id: UUID) -> None:
        changes = await database.run(replay.since, session_id, self.seq)
        offsets, self._resume = self._resume, None
        if self.seq > changes.seq or changes.seq - self.seq > config().chat.replay_rows:
            if self.seq:
                await self._reset("The cursor is ahead of the session or too far behind it.")
            changes = await database.run(replay.first_page, session_id)
            offsets = {}
        elif self.seq == 0 and changes.more:
            changes = await database.run(replay.first_page, session_id)
        if offsets:
            self._take_up(offsets, changes)
        while True:
            await self._send_rows(changes.rows, changes.rest)
            if not changes.more:
                break
            changes = await database.run(replay.since, session_id, self.seq)
        self.seq = max(self.seq, changes.seq)
        for pending in changes.pending:
            # One accepted after the rows were read comes with its own row's event; its text must not come before.
            if pending.row_seq <= self.seq and not await self._catch_up_stream(pending):
                return

    async def _send_rows(self, rows: list[ChatHistory], rest: list[replay.Listed]) -> None:
        """Send rows, each let go as soon as it is sent, then read the next ones."""
        while True:
            while rows:
                live = wire.row_of(rows.pop(0))
                await self._put(live.frame)
                self._note_row(live)
            if not rest:
                return
            rows, rest = await database.run(replay.piece, rest)

    def _take_up(self, offsets: dict[UUID, int], changes: replay.Changes) -> None:
        """Go on at the client's own offsets, where the answer's row is the one the client knows."""
        for pending in changes.pending:
            offset = offsets.get(pending.message_id, 0)
            if offset and pending.row_seq <= self.seq:
                self.cursors[pending.message_id] = StreamCursor(pending.attempt, offset, monotonic())

    async def _catch_up_stream(self, pending: replay.Pending) -> bool:
        """Send an unfinished answer's text; False if that ended in a reset."""
        cursor = self.cursors.setdefault(pending.message_id, StreamCursor(pending.attempt, 0, monotonic()))
        cursor.attempt = max(cursor.attempt, pending.attempt)
        local = self._local(pending.message_id)
        if local is not None and local.attempt == cursor.attempt:
            extras = [live.frame for live in local.extras.values()]
        else:
            try:
                extras = await streams.read_extras(pending.message_id, cursor.attempt)
            except StoreUnavailable:
                return True  # the text stays where it is until the store is back; the hub then looks again
        for frame in extras:
            await self._put(frame)
        await self._send_range(pending.message_id, cursor)
        return pending.message_id in self.cursors

    async def _send_range(self, message_id: UUID, cursor: StreamCursor) -> None:
        """Send the text from the cursor to where the buffer ends now."""
        while True:
            try:
                data = await self._read(message_id, cursor)
            except StoreUnavailable:
                return
            except UnicodeDecodeError:  # the cursor points inside a character: it is not one of ours
                await self._unservable()
                return
            if data is None:
                await self._missing(cursor)
            if not data:
                return
            cursor.lost_at = None
            live = wire.text_of(message_id, cursor.attempt, cursor.offset, data)
            await self._put(live.frame)
            cursor.offset = live.end

    async def _read(self, message_id: UUID, cursor: StreamCursor) -> bytes | None:
        cursor.heard_at = monotonic()
        local = self._local(message_id)
        if local is None or local.attempt != cursor.attempt:
            return await streams.read_text(message_id, cursor.attempt, cursor.offset, streams.FRAME_BYTES)
        if cursor.offset > local.shown:
            return None
        return streams.whole(bytes(local.data[cursor.offset : min(local.shown, cursor.offset + streams.FRAME_BYTES)]))

    async def _missing(self, cursor: StreamCursor) -> None:
        """No text at the cursor. A living owner writes a lost buffer anew within moments; else the cursor is void."""
        now = monotonic()
        cursor.lost_at = cursor.lost_at or now
        if cursor.offset and now - cursor.lost_at > 3 * config().chat.repair_seconds:
            await self._unservable()
        elif cursor.offset:
            self._look_again()

    async def _unservable(self) -> None:
        """The text at the client's offset is gone, or never was: start over from the rows."""
        await self._reset("The text at your offset can't be read any more.")
        self.behind = True

    async def _reset(self, reason: str) -> None:
        await self._put(encode(protocol.Reset(reason=reason)))
        self._events.clear()
        self._event_bytes = 0
        self.cursors.clear()
        self.seq = 0
