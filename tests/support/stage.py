"""What the fault tests share: settings of their servers, scripts that go on until they may end, waiting for facts."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.support.client import Client
from tests.support.scripted_provider import Action, Gate, Reply
from tests.support.server import Server

#: Leases that let a takeover be seen soon.
SHORT_LEASES = {"LEASE_SECONDS": 2.5, "RENEW_SECONDS": 0.3, "SWEEP_SECONDS": 0.3}


def settings(**sections: Any) -> dict[str, str]:
    """The environment that gives a server these parts of DJANGO_CHAIN."""
    return {"DJANGO_CHAIN_OVERRIDES": json.dumps(sections)}


def talking(gate: Gate, *, every: float = 0.01) -> Action:
    """Numbered words, with characters of two to four bytes, until the gate is open."""

    async def act(reply: Reply) -> None:
        gate.reached.set()
        number = 0
        while not gate.is_open():
            await reply.token(f"{number} é…🙂 ")
            number += 1
            await asyncio.sleep(every)

    return act


async def eventually(fact: Callable[[], Any], *, deadline: float = 5.0) -> Any:
    """Wait until `fact()` is truthy; its value."""
    until = time.monotonic() + deadline
    while not (value := await asyncio.to_thread(fact)):
        assert time.monotonic() < until, f"not so within {deadline} s"
        await asyncio.sleep(0.02)
    return value


async def within(seconds: float, work: Awaitable[Any]) -> Any:
    """The result of `work`, which must not take longer."""
    async with asyncio.timeout(seconds):
        return await work


async def move(client: Client, server: Server, session_id: str) -> dict[str, Any]:
    """Reconnect to another process, and resume."""
    client.url = server.socket_url(session_id)
    return await client.connect()


def no_traceback(*servers: Server) -> None:
    for server in servers:
        log = server.log_text()
        assert "Traceback" not in log, log[max(0, log.index("Traceback") - 1500) :][:6000]


def resident_kib(pid: int) -> int:
    """The memory that a process holds."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError(f"no process {pid}")
