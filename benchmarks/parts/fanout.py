"""What the server pays for each frame when two hundred people watch one answer.

Tokens come at a pace that leaves no two of them for one frame, so that every token goes to everybody.
"""

import asyncio
from typing import Any

import uvloop

from benchmarks import servers
from benchmarks.clients import Chat, Client, Order, Peer
from benchmarks.report import Aim, Measure, progress, rounds
from benchmarks.servers import Server
from benchmarks.stage import Stage

_MEMBERS = 200
_CORE, _PUBSUB = "channels_redis group_send, core", "channels_redis group_send, pubsub"


def run(stage: Stage, *, quick: bool) -> list[Measure]:
    order, count = Order(tokens=40 if quick else 80, rate=20, to="all"), 2 if quick else 3
    peers = [
        servers.ours(stage, provider="clock", tokens=order.tokens, tokens_per_second=order.rate),
        servers.bare(stage),
        servers.stock(stage, name=_CORE, layer="channels_redis.core.RedisChannelLayer"),
        servers.stock(stage, name=_PUBSUB, layer="channels_redis.pubsub.RedisPubSubChannelLayer"),
    ]
    session_id = stage.new_sessions(1)[0]
    with servers.running(*peers):
        return uvloop.run(_measure(stage, peers, order, count, session_id))


async def _measure(stage: Stage, peers: list[Server], order: Order, count: int, session_id: Any) -> list[Measure]:
    per_frame = Measure(
        f"fan-out: server CPU per delivered frame ({_MEMBERS} sockets on one session)",
        "µs",
        aims={servers.BARE: Aim(1.5), _CORE: Aim(6, cheaper=True), _PUBSUB: Aim(6, cheaper=True)},
    )
    per_token = Measure("fan-out: server CPU per token and reader", "µs")
    rooms = {server.name: await _room(stage, server, session_id) for server in peers}
    for number in rounds(count, seconds=80):
        for server in peers:
            frames, spent = await _one_round(server, rooms[server.name], order)
            if number:  # the first round only warms up
                per_frame.add(server.name, spent * 1e6 / frames)
                per_token.add(server.name, spent * 1e6 / (order.tokens * _MEMBERS))
            progress(f"fan-out {number or 'warm-up'}: {server.name} {spent * 1e6 / frames:.1f} µs a frame")
            if number == 1:
                per_frame.notes.append(
                    f"fan-out: {server.name} delivered {frames / _MEMBERS:.1f} frames to each reader"
                    f" for {order.tokens} tokens at {order.rate:g} a second"
                )
    for client in (client for room in rooms.values() for client in room):
        client.close()
    return [per_frame, per_token]


async def _one_round(server: Server, room: list[Client], order: Order) -> tuple[int, float]:
    """Frames delivered to all, and the CPU that they took."""
    frames_before, before = sum(client.frames for client in room), server.cpu()
    everybody = [client.listen() for client in room[1:]]
    await room[0].ask(order)
    async with asyncio.timeout(60):
        await asyncio.gather(*everybody)
    return sum(client.frames for client in room) - frames_before, server.cpu() - before


async def _room(stage: Stage, server: Server, session_id: Any) -> list[Client]:
    if server.name == servers.OURS:
        return [await Chat().enter(server.port, session_id, stage.token) for _ in range(_MEMBERS)]
    return [await Peer().connect(server.port, "/") for _ in range(_MEMBERS)]
