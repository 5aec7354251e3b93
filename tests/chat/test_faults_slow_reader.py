"""A client that never reads costs the server next to nothing, holds nobody up, and is told why it was closed."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.conftest import Person, side_by_side
from tests.support import oracle
from tests.support.scripted_provider import ScriptedProvider, ok, text
from tests.support.server import Server
from tests.support.slow_reader import SlowReader
from tests.support.stage import no_traceback, resident_kib, settings

PIECE = "🙂" * 5_000
#: 0.78 MiB of UTF-8 an answer.
ANSWER = [PIECE] * 39
ANSWERS = 27
MEBIBYTE = 1024


@pytest.fixture(scope="module")
def by_kind(live_database: None, server_env: dict[str, str]) -> Iterator[dict[str, Server]]:
    # 20 MB in seconds need more `seen` frames than a person's commands.
    env = server_env | settings(CHAT={"COMMANDS_PER_MINUTE": 60_000})
    with side_by_side(Server(env), Server(env, kind="daphne")) as servers:
        yield {server.kind: server for server in servers}
        no_traceback(*servers)


async def test_a_client_that_never_reads_is_left_behind_and_closed(
    by_kind: dict[str, Server], person: Person, provider: ScriptedProvider
) -> None:
    provider.script("flood", text(*ANSWER), ok())
    await asyncio.gather(*(_never_read(kind, server, person) for kind, server in by_kind.items()))


async def _never_read(kind: str, server: Server, person: Person) -> None:
    session_id = await asyncio.to_thread(person.new_session, server)
    await oracle.give_workflow(session_id, [{"type": "llm"}])
    async with person.client(server, session_id) as client:
        for _ in range(20):  # what the process takes for answers of this size by themselves, and a history to resume
            await client.ask("[[flood]]")
        with closing(SlowReader(server.socket_url(session_id))) as slow:
            await asyncio.to_thread(slow.open)
            slow.hello(person.token)
            before = peak = resident_kib(server.pid)
            began = time.monotonic()
            latencies = []
            for _ in range(ANSWERS):
                asked_at = time.monotonic()
                row = await client.ask("[[flood]]")
                latencies.append(time.monotonic() - asked_at)
                assert row["status"] == "complete"
                peak = max(peak, resident_kib(server.pid))
            while time.monotonic() - began < 7:  # the server's own patience, and the second in which it looks
                await client.ask("small talk")
            print(f"{kind}: +{(peak - before) / MEBIBYTE:.1f} MiB, slowest answer {max(latencies):.2f} s")
            assert peak - before < 16 * MEBIBYTE
            assert max(latencies) < 3
            code = await asyncio.to_thread(slow.read_to_the_end)
            assert code == 4008
            assert slow.bytes_read < 8_000_000
            assert len(slow.frames) > 1
        assert (await client.ask("and now?"))["status"] == "complete"
        await oracle.check(session_id, client)
