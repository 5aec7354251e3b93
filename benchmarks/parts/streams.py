"""Five hundred answers at once, fifty tokens a second each: how late is a token at its reader?

A token carries the time at which it was due. What is late at the model's side because the server is busy counts, as it
would with a provider whose next token already lies in the socket.
"""

import asyncio
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import uvloop

from benchmarks import servers
from benchmarks.clients import Chat, Client, Order, Peer
from benchmarks.report import Aim, Measure, progress
from benchmarks.servers import Server
from benchmarks.stage import Stage

_RATE = 50
#: Seconds over which the answers begin; then all run for as long as is measured.
_RAMP = 5


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


def run(stage: Stage, *, quick: bool) -> list[Measure]:
    streams, seconds, rounds = (500, 6, 1) if quick else (500, 15, 2)
    order = Order(tokens=(_RAMP + seconds) * _RATE, rate=_RATE)
    peers = [
        servers.ours(stage, provider="clock", tokens=order.tokens, tokens_per_second=order.rate),
        servers.bare(stage),
    ]
    sessions = [stage.new_sessions(streams) for _ in range(rounds)]
    what = f"{streams} streams at {_RATE} tokens/s"
    late = Measure(f"{what}: lateness of a token, p99", "ms", aims={servers.OURS: Aim(250)})
    middle = Measure(f"{what}: lateness, p50", "ms")
    cpu = Measure(f"{what}: server CPU per token", "µs")
    with servers.running(*peers):
        for ids in sessions:
            for server in peers:
                seen = uvloop.run(_measure(stage, server, ids, order))
                late.add(server.name, seen.p99 * 1000)
                middle.add(server.name, seen.p50 * 1000)
                cpu.add(server.name, seen.cpu * 1e6)
                said = (
                    f"{server.name} p50 {seen.p50 * 1000:.0f} ms, p99 {seen.p99 * 1000:.0f} ms,"
                    f" {seen.tokens_per_second:.0f} of {streams * _RATE} tokens/s,"
                    f" {seen.utilisation:.0%} of a core, {seen.frames_per_token:.2f} frames a token"
                )
                progress(f"streams: {said}")
                late.notes.append(f"{what}: {said}")
    return [late, middle, cpu]


async def _measure(stage: Stage, server: Server, ids: list[Any], order: Order) -> Seen:
    readers = [Reader() for _ in ids]
    clients = [await _client(stage, server, *pair) for pair in zip(ids, readers, strict=True)]
    asked = []
    for client in clients:
        asked.append(asyncio.create_task(client.ask(order)))
        await asyncio.sleep(_RAMP / len(ids))
    while not all(reader.came for reader in readers):
        await asyncio.sleep(0.05)
    begin, cpu, frames = monotonic(), server.cpu(), sum(client.frames for client in clients)
    await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
    end, cpu, frames = monotonic(), server.cpu() - cpu, sum(client.frames for client in clients) - frames
    await asyncio.gather(*asked)
    for client in clients:
        client.close()
    pairs = [pair for reader in readers for pair in zip(reader.due, reader.came, strict=True)]
    arrived = sum(begin <= came < end for _, came in pairs)
    late = sorted(came - due for due, came in pairs if begin <= due < end)
    return Seen(
        p50=late[len(late) // 2],
        p99=late[len(late) * 99 // 100],
        cpu=cpu / arrived,
        utilisation=cpu / (end - begin),
        tokens_per_second=arrived / (end - begin),
        frames_per_token=frames / arrived,
    )


async def _client(stage: Stage, server: Server, session_id: Any, reader: Reader) -> Client:
    if server.name == servers.OURS:
        return await Chat(reader.read).enter(server.port, session_id, stage.token)
    return await Peer(reader.read).connect(server.port, "/")
