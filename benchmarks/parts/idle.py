"""What a socket costs that only waits: two thousand of them, signed in, each at a session of its own."""

import asyncio
from typing import Any

import uvloop

from benchmarks import servers
from benchmarks.clients import Chat, Client, Peer
from benchmarks.report import Aim, Measure, progress, rounds
from benchmarks.servers import Server
from benchmarks.stage import Stage

#: Sockets that come first, so that what the server makes once is not counted.
_FIRST = 100
_AT_A_TIME = 20


def run(stage: Stage, *, quick: bool) -> list[Measure]:
    count, repeats = 500 if quick else 2000, 1 if quick else 2
    memory = Measure(f"idle: memory for each signed-in socket ({count} sockets)", "KiB", aims={servers.OURS: Aim(36)})
    handshake = Measure("idle: server CPU for opening one (handshake, sign-in, first page)", "ms")
    sessions = stage.new_sessions(_FIRST + count)
    for _ in rounds(repeats, seconds=40, warm_up=False):
        for server in (servers.ours(stage), servers.bare(stage)):
            with servers.running(server):
                kib, milliseconds = uvloop.run(_measure(stage, server, sessions))
            memory.add(server.name, kib)
            handshake.add(server.name, milliseconds)
            progress(f"idle: {server.name} {kib:.1f} KiB a socket, {milliseconds:.2f} ms CPU to open it")
    return [memory, handshake]


async def _measure(stage: Stage, server: Server, sessions: list[Any]) -> tuple[float, float]:
    """KiB and milliseconds of CPU for each socket."""
    first = await _connect(stage, server, sessions[:_FIRST])
    await asyncio.sleep(1)
    memory, cpu = server.memory(), server.cpu()
    rest = await _connect(stage, server, sessions[_FIRST:])
    await asyncio.sleep(1)
    memory, cpu = server.memory() - memory, server.cpu() - cpu
    for client in first + rest:
        client.close()
    return memory / 1024 / len(rest), cpu * 1000 / len(rest)


async def _connect(stage: Stage, server: Server, sessions: list[Any]) -> list[Client]:
    free = asyncio.Semaphore(_AT_A_TIME)

    async def one(session_id: Any) -> Client:
        async with free:
            if server.name == servers.OURS:
                return await Chat().enter(server.port, session_id, stage.token)
            return await Peer().connect(server.port, "/")

    return await asyncio.gather(*map(one, sessions))
