"""What the server pays for each token that it carries from the model to one reader.

Ten sessions at once, long answers, no delay between tokens: the price of the path, not of waiting. A turn's fixed price
(two commits, a log row) is in it, spread over the answer.
"""

import asyncio

import uvloop

from benchmarks import machine, servers
from benchmarks.clients import Chat, Client, Order, Peer
from benchmarks.report import Aim, Measure, progress, rounds
from benchmarks.servers import Server
from benchmarks.stage import Stage

_SESSIONS = 10


def run(stage: Stage, *, quick: bool) -> list[Measure]:
    order, count = Order(tokens=2000 if quick else 4000), 2 if quick else 4
    peers = [servers.ours(stage, provider="clock", tokens=order.tokens), servers.bare(stage), servers.stock(stage)]
    sessions = [stage.new_sessions(_SESSIONS) for _ in range(count + 1)]
    with servers.running(*peers):
        return [uvloop.run(_measure(stage, peers, order, sessions))]


async def _measure(stage: Stage, peers: list[Server], order: Order, sessions: list[list[object]]) -> Measure:
    measure = Measure(
        f"relay: server CPU per token ({_SESSIONS} sessions, {order.tokens} tokens an answer)",
        "µs",
        aims={servers.BARE: Aim(1.5), servers.STOCK: Aim(5, cheaper=True)},
    )
    frames = stores = 0.0
    for number in rounds(len(sessions) - 1, seconds=100):
        ids = sessions[number]
        for server in peers:
            clients = await _clients(stage, server, ids)
            before, stores_before = server.cpu(), _stores(stage)
            await asyncio.gather(*(client.ask(order) for client in clients))
            spent, stores = server.cpu() - before, _stores(stage) - stores_before if server is peers[0] else stores
            cost = spent * 1e6 / (order.tokens * _SESSIONS)
            if number:  # the first round only warms up
                measure.add(server.name, cost)
            progress(f"relay {number or 'warm-up'}: {server.name} {cost:.1f} µs a token")
            if server is peers[0]:
                frames = sum(client.deltas for client in clients)
            for client in clients:
                client.close()
    per_token = order.tokens * _SESSIONS
    measure.notes.append(
        f"relay: without a delay ours sends {frames / per_token:.3f} frames a token (text of a tick goes out together),"
        f" the peers 1; PostgreSQL and Valkey took {stores * 1e6 / per_token:.1f} µs a token beside it"
    )
    return measure


async def _clients(stage: Stage, server: Server, ids: list[object]) -> list[Client]:
    if server.name == servers.OURS:
        return [await Chat().enter(server.port, session_id, stage.token) for session_id in ids]
    return [await Peer().connect(server.port, "/") for _ in ids]


def _stores(stage: Stage) -> float:
    return sum(machine.tree_cpu_seconds(pid) for pid in (stage.postgres.pid, stage.valkey.pid) if pid)
