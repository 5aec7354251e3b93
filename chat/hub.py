"""What links a process's sockets to what happens in their sessions, here and in other processes.

One subscription connection serves all sockets of the process, and events are delivered to them in-process. Redis may
lose an event or be away: sockets stay open, and whatever doesn't fit or stays silent is read again from where it is
kept.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from random import random
from secrets import token_bytes, token_hex
from time import monotonic
from typing import Any
from uuid import UUID

from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from chat import protocol, replay, streams, wire
from chat.outbox import Outbox
from chat.wire import SENDER_BYTES, Kind, Live
from kernel import database, redis
from kernel.conf import config
from kernel.errors import ChainError, StoreUnavailable

logger = logging.getLogger(__name__)

_AWAY = (RedisError, OSError, TimeoutError)


class Hub:
    """The sockets of this process by session, and the process's one subscription."""

    def __init__(self) -> None:
        #: What tells this process's own events from others' on a channel both use.
        self.sender = token_bytes(SENDER_BYTES)
        self.epoch = ""
        self.store_up = False
        self.on_stop: Callable[[UUID], None] = lambda _: None
        self.on_watch: Callable[[UUID], None] = lambda _: None
        self.on_row: Callable[[UUID], None] = lambda _: None
        self.on_store_lost: Callable[[], None] = lambda: None
        self.is_local: Callable[[UUID], bool] = lambda _: False
        self._sockets: dict[UUID, set[Outbox]] = {}
        self._control = redis.key("control")
        self._pubsub: PubSub | None = None
        self._confirmed: dict[str, asyncio.Event] = {}
        self._tasks: list[asyncio.Task[None]] = []
        #: Sessions with an event that couldn't be published.
        self._unannounced: set[UUID] = set()

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._listen(), name="chain-hub-listen"),
            asyncio.create_task(self._every(config().chat.repair_seconds, self._check), name="chain-hub-check"),
        ]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # Sockets ---------------------------------------------------------------------------------------------------------

    def outboxes(self) -> Iterable[Outbox]:
        for boxes in self._sockets.values():
            yield from boxes

    async def join(self, session_id: UUID, outbox: Outbox) -> None:
        """Deliver a session's events to this socket from now on."""
        boxes = self._sockets.setdefault(session_id, set())
        boxes.add(outbox)
        confirmed = self._confirmed.get(streams.channel(session_id))
        if confirmed is None or not confirmed.is_set():
            # Every joiner waits: what happens before the subscription stands is read from the rows afterwards.
            await self._subscribe(session_id)

    async def leave(self, session_id: UUID, outbox: Outbox) -> None:
        boxes = self._sockets.get(session_id)
        if boxes is None:
            return
        boxes.discard(outbox)
        if not boxes:
            del self._sockets[session_id]
            await self._unsubscribe(session_id)

    def deliver(self, session_id: UUID, live: Live) -> None:
        """Hand an event to this process's sockets of the session."""
        for outbox in self._sockets.get(session_id, ()):
            outbox.offer(live)

    def tell_all(self, make: Callable[[], protocol.Event]) -> None:
        """Send every socket of the process a frame of its own; those not yet welcomed are told with their welcome."""
        for outbox in self.outboxes():
            if outbox.session_id is not None:
                outbox.reply(make())

    # To other processes ----------------------------------------------------------------------------------------------

    async def publish(self, session_id: UUID, *lives: Live) -> None:
        """Deliver events here, and to whoever watches the session elsewhere. Never fails: what is lost is repaired."""
        for live in lives:
            self.deliver(session_id, live)
            if live.kind is Kind.ROW:
                self.on_row(session_id)
        channel = streams.channel(session_id)
        try:
            async with asyncio.timeout(config().redis.timeout):
                pipe = redis.client().pipeline(transaction=False)
                for live in lives:
                    pipe.publish(channel, wire.pack(self.sender, live))
                await pipe.execute()
        except _AWAY:
            self._unannounced.add(session_id)

    def others_watch(self, session_id: UUID, receivers: int) -> bool:
        """Whether a published event's count of receivers means that another process watches."""
        return receivers > (1 if session_id in self._sockets else 0)

    async def send_control(self, **what: str) -> None:
        """Tell every process something; best effort (each has a slower way to find out)."""
        await self._send_controls([what])

    async def _send_controls(self, controls: list[dict[str, str]]) -> bool:
        with suppress(*_AWAY):
            async with asyncio.timeout(config().redis.timeout):
                pipe = redis.client().pipeline(transaction=False)
                for what in controls:
                    pipe.publish(self._control, self.sender + json.dumps(what).encode())
                await pipe.execute()
                return True
        return False

    def _on_control(self, payload: bytes) -> None:
        try:
            what: dict[str, Any] = json.loads(payload[SENDER_BYTES:])
            if "stop" in what:
                self.on_stop(UUID(what["stop"]))
            if "watch" in what:
                self.on_watch(UUID(what["watch"]))
            if "look" in what:
                for outbox in self._sockets.get(UUID(what["look"]), ()):
                    outbox.fall_behind()
        except (ValueError, TypeError, AttributeError):
            logger.warning("action=bad_control")

    # From other processes --------------------------------------------------------------------------------------------

    async def _subscribe(self, session_id: UUID) -> None:
        """Subscribe, wait for the confirmation, then tell the processes that run answers that someone watches."""
        pubsub, channel = self._pubsub, streams.channel(session_id)
        if pubsub is None:
            return  # the listener subscribes to everything when it gets a connection
        confirmed = self._confirmed.setdefault(channel, asyncio.Event())
        with suppress(*_AWAY):
            async with asyncio.timeout(config().redis.timeout):
                await pubsub.subscribe(channel)
                await confirmed.wait()
            await self.send_control(watch=str(session_id))

    async def _unsubscribe(self, session_id: UUID) -> None:
        channel = streams.channel(session_id)
        self._confirmed.pop(channel, None)
        if self._pubsub is not None:
            with suppress(*_AWAY):
                async with asyncio.timeout(config().redis.timeout):
                    await self._pubsub.unsubscribe(channel)

    async def _listen(self) -> None:
        """Hold the subscription for ever; every loss and return of the store is announced."""
        while True:
            client = redis.connect(max_connections=2)
            try:
                async with client.pubsub() as pubsub:
                    await self._subscribe_all(pubsub)
                    await self._came_up()
                    while True:
                        message = await pubsub.get_message(timeout=30)
                        if message is not None:
                            self._on_message(message)
            except _AWAY as error:
                self._went_down(error)
            except Exception as error:
                # Nothing may end this task: without it the process hears nothing of the others for ever.
                logger.exception("action=listen_failed")
                self._went_down(error)
            finally:
                self._pubsub = None
                with suppress(*_AWAY):
                    await client.aclose()
            await asyncio.sleep(0.2 + 0.3 * random())  # noqa: S311  spreads processes, guards nothing

    async def _subscribe_all(self, pubsub: PubSub) -> None:
        asked: set[str] = set()
        wanted = {self._control}
        while wanted > asked:
            await pubsub.subscribe(*(wanted - asked))
            asked |= wanted
            # Sockets that joined meanwhile left their channel to us.
            wanted = asked | {streams.channel(session_id) for session_id in self._sockets}
        self._pubsub = pubsub

    def _on_message(self, message: dict[str, Any]) -> None:
        channel = message["channel"].decode()
        if message["type"] == "subscribe" and channel in self._confirmed:
            self._confirmed[channel].set()
        if message["type"] != "message":
            return
        payload: bytes = message["data"]
        if channel == self._control:
            self._on_control(payload)
        elif not payload.startswith(self.sender):
            session_id = UUID(channel.rpartition(":")[2])
            try:
                live = wire.unpack(payload)
            except ValueError:
                logger.warning("action=bad_event")
                return
            self.deliver(session_id, live)
            if live.kind is Kind.ROW:
                self.on_row(session_id)

    async def _came_up(self) -> None:
        await self._check_epoch()
        if self.store_up:
            return
        self.store_up = True
        logger.info("action=store_up epoch=%s", self.epoch)
        self.on_store_lost()
        self.tell_all(protocol.Recovered)
        for outbox in self.outboxes():
            outbox.fall_behind()
        await self._send_controls([{"watch": str(session_id)} for session_id in self._sockets])

    def _went_down(self, error: BaseException) -> None:
        if self.store_up:
            logger.warning("action=store_down error=%s", type(error).__name__)
            self.tell_all(lambda: protocol.Degraded(reason="The stream store is away."))
        self.store_up = False

    async def _check_epoch(self) -> None:
        """The store's lifetime has a name of its own in it: another name, or none, means that its content was lost."""
        key = redis.key("epoch")
        client = redis.client()
        async with asyncio.timeout(config().redis.timeout):
            epoch: Any = await client.set(key, token_hex(4), nx=True, get=True) or await client.get(key)
        name = epoch.decode() if epoch else ""
        if self.epoch and name != self.epoch:
            logger.warning("action=store_emptied epoch=%s", name)
            self.on_store_lost()
        self.epoch = name

    # Repairs ---------------------------------------------------------------------------------------------------------

    async def _every(self, seconds: float, job: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await job()
            except (ChainError, *_AWAY) as error:
                logger.debug("action=check_failed error=%s", type(error).__name__)
            except Exception:
                # Whatever it was: a process that no longer looks would leave its sockets silent.
                logger.exception("action=check_failed")

    async def _check(self) -> None:
        """Look for what got lost on the way: silent answers of other processes, rows that were not announced."""
        await self._check_store()
        await self._announce_late()
        quiet_since = monotonic() - config().chat.repair_seconds
        suspects = [
            (outbox, message_id, cursor)
            for outbox in self.outboxes()
            for message_id, cursor in outbox.silent(quiet_since)
            if not self.is_local(message_id)
        ]
        # While the store is away nobody announces rows: the database itself tells then.
        doubtful = {outbox for outbox, _, _ in suspects} if self.store_up else set(self.outboxes())
        if not doubtful:
            return
        sessions = {outbox.session_id for outbox in doubtful if outbox.session_id is not None}
        seqs = await database.run(replay.session_seqs, sessions)
        for outbox in doubtful:
            if outbox.session_id is not None and seqs.get(outbox.session_id, 0) > outbox.seq:
                outbox.fall_behind()
        keys = sorted({streams.buffer_key(message_id, cursor.attempt) for _, message_id, cursor in suspects})
        ends = await self._ends(keys)
        for outbox, message_id, cursor in suspects:
            if ends.get(streams.buffer_key(message_id, cursor.attempt), cursor.offset) != cursor.offset:
                outbox.fall_behind()

    async def _announce_late(self) -> None:
        """Have the other processes look at the sessions with events that they were not told of."""
        late, self._unannounced = self._unannounced, set()
        if late and not await self._send_controls([{"look": str(session_id)} for session_id in late]):
            self._unannounced |= late

    async def _check_store(self) -> None:
        """A frozen store keeps its connections: the listener hears nothing, a command that times out tells."""
        if self._pubsub is None:
            return  # the listener knows that it is away, and tells when it is back
        try:
            await self._came_up()
        except _AWAY as error:
            self._went_down(error)

    async def _ends(self, keys: list[str]) -> dict[str, int]:
        try:
            async with redis.guarded() as client, asyncio.timeout(config().redis.timeout):
                pipe = client.pipeline(transaction=False)
                for key in keys:
                    pipe.strlen(key)
                lengths = await pipe.execute()
        except StoreUnavailable:
            return {}
        return {key: max(length - 1, 0) for key, length in zip(keys, lengths, strict=True)}
