"""Five hundred answers at once, fifty tokens a second each: how late is a token at its reader?

A token carries the time at which it was due. What is late at the model's side because the server is busy counts, as it
would with a provider whose next token already lies in the socket.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import uvloop

from benchmarks import servers
from benchmarks.clients import Chat, Client, Order, Peer
from benchmarks.report import Aim, Measure, progress, rounds
from benchmarks.servers import Server
from benchmarks.stage import Stage

_STREAMS, _RATE = 500, 50
#: Seconds over which the answers are asked for.
_RAMP = 10
#: Seconds that a server may take until all of them run; they go on until it is stopped.
_PATIENCE = 60


@dataclass
class Reader:
    """Takes the text of one answer apart; keeps when each token was due, and when it came."""

    due: list[float] = field(default_factory=list)
    came: list[float] = field(default_factory=list)
    _left: str = ""

    def read(self, text: str) -> None:
        now = monotonic()
        *tokens, self._left = (self._left + text).split(" ")
        self.due += map(float, tokens)
        self.came += [now] * len(tokens)


@dataclass
class Seen:
    """What came in the time in which all answers ran."""

    p50: float
    p99: float
    cpu: float
    utilisation: float
    tokens_per_second: float
    frames_per_token: float
    #: False: more came due than was delivered, so the true lateness has no bound.
    kept_up: bool


def run(stage: Stage, *, quick: bool) -> list[Measure]:
    seconds, repeats = (5, 1) if quick else (15, 2)
    order = Order(tokens=(_PATIENCE + seconds) * _RATE, rate=_RATE)
    what = f"{_STREAMS} streams at {_RATE} tokens/s"
    late = Measure(f"{what}: lateness of a token, p99", "ms", aims={servers.OURS: Aim(250)})
    middle = Measure(f"{what}: lateness, p50", "ms")
    cpu = Measure(f"{what}: server CPU per token", "µs")
    for number in rounds(repeats, seconds=70, warm_up=False):
        ours = servers.ours(stage, provider="clock", tokens=order.tokens, tokens_per_second=order.rate)
        for server in (ours, servers.bare(stage)):
            with servers.running(server):
                seen = uvloop.run(_measure(stage, server, order, seconds))
            late.add(server.name, seen.p99 * 1000)
            middle.add(server.name, seen.p50 * 1000)
            cpu.add(server.name, seen.cpu * 1e6)
            said = (
                f"{server.name} p50 {seen.p50 * 1000:.0f} ms, p99 {seen.p99 * 1000:.0f} ms,"
                f" {seen.tokens_per_second:.0f} of {_STREAMS * _RATE} tokens/s with {seen.utilisation:.0%} of a core,"
                f" {seen.frames_per_token:.2f} frames a token{'' if seen.kept_up else '; IT DID NOT KEEP UP'}"
            )
            progress(f"streams {number}: {said}")
            late.notes.append(f"{what}, round {number}: {said}")
    return [late, middle, cpu]


async def _measure(stage: Stage, server: Server, order: Order, seconds: float) -> Seen:
    ids = await asyncio.to_thread(stage.new_sessions, _STREAMS)
    readers = [Reader() for _ in ids]
    clients = [await _client(stage, server, *pair) for pair in zip(ids, readers, strict=True)]
    asked = []
    for client in clients:
        asked.append(asyncio.create_task(client.ask(order)))
        await asyncio.sleep(_RAMP / len(ids))
    begun = await _within(_PATIENCE / 2, lambda: all(reader.came for reader in readers))
    await asyncio.sleep(2)
    begin, cpu, frames = monotonic(), server.cpu(), sum(client.deltas for client in clients)
    await asyncio.sleep(seconds)
    end, cpu, frames = monotonic(), server.cpu() - cpu, sum(client.deltas for client in clients) - frames
    # What was due in the time may come after it.
    caught_up = await _within(_PATIENCE / 4, lambda: all(reader.due and reader.due[-1] > end for reader in readers))
    for task in asked:
        task.cancel()
    await asyncio.gather(*asked, return_exceptions=True)
    pairs = [pair for reader in readers for pair in zip(reader.due, reader.came, strict=True)]
    arrived = sum(begin <= came < end for _, came in pairs)
    late = sorted(came - due for due, came in pairs if begin <= due < end) or [monotonic() - begin]
    return Seen(
        p50=late[len(late) // 2],
        p99=late[len(late) * 99 // 100],
        cpu=cpu / max(arrived, 1),
        utilisation=cpu / (end - begin),
        tokens_per_second=arrived / (end - begin),
        frames_per_token=frames / max(arrived, 1),
        kept_up=begun and caught_up,
    )


async def _within(seconds: float, holds: Callable[[], bool]) -> bool:
    """Wait until it holds; False if that takes too long."""
    until = monotonic() + seconds
    while not (held := holds()) and monotonic() < until:
        await asyncio.sleep(0.05)
    return held


async def _client(stage: Stage, server: Server, session_id: Any, reader: Reader) -> Client:
    if server.name == servers.OURS:
        return await Chat(reader.read).enter(server.port, session_id, stage.token)
    return await Peer(reader.read).connect(server.port, "/")
