"""What no client can bring about at will: a process whose leases run out with text under way."""

import asyncio
from uuid import uuid4

from chat import streams
from chat.streams import Flusher
from chat.wire import Live
from kernel import redis


async def test_text_is_held_back_while_the_leases_may_have_run_out(redis_url: str) -> None:
    """Another process may have settled the answer: neither the buffer nor a socket may get more of it."""
    delivered: list[Live] = []
    holds = False
    flusher = Flusher(
        sender=b"a sender",
        deliver=lambda _, live: delivered.append(live),
        may_write=lambda: holds,
        others_watch=lambda *_: False,
    )
    kept, lost = (flusher.open(uuid4(), uuid4(), 1) for _ in range(2))
    try:
        for stream in (kept, lost):
            stream.append("late")
        # Nothing may happen, however long: a few of the flusher's longest pauses stand for that.
        await asyncio.sleep(0.3)
        assert not delivered
        assert not await streams.read_all(kept.message_id, 1)
        flusher.drop(lost)  # what a renewal does with an answer that is another's now
        holds = True
        await asyncio.wait_for(kept.settled.wait(), 2)
        assert [live.message_id for live in delivered] == [kept.message_id]
        assert await streams.read_all(kept.message_id, 1) == "late"
        assert not await streams.read_all(lost.message_id, 1)
    finally:
        await flusher.close()
        await redis.close()
