"""Every way in which a provider fails, seen by a client: a typed end, the text so far kept, and the chat goes on."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tests.conftest import Person
from tests.support import oracle
from tests.support.scripted_provider import (
    Action,
    Gate,
    ScriptedProvider,
    begin,
    bytewise,
    cut,
    done,
    endless,
    finish,
    hang,
    ok,
    raw,
    role,
    status,
    stream_error,
    text,
    tokens,
    usage,
    wait,
)
from tests.support.server import Server, free_port
from tests.support.stage import no_traceback, settings

BOUNDS = {
    "CONNECT_TIMEOUT": 1.0,
    "FIRST_TOKEN_TIMEOUT": 1.0,
    "BETWEEN_TOKENS_TIMEOUT": 0.7,
    "TOTAL_TIMEOUT": 8.0,
    "MAX_RETRIES": 1,
}
MAX_CHARS = 2_000_000


@pytest.fixture(scope="module")
def impatient(live_database: None, server_env: dict[str, str]) -> Iterator[Server]:
    """A server whose model has short bounds."""
    refusing = {
        "PROVIDER": "openai",
        "MODEL": "scripted",
        "OPTIONS": {"api_key": "sk-test-not-a-key", "base_url": f"http://127.0.0.1:{free_port()}/v1"},
        **BOUNDS,
    }
    models = {"default": BOUNDS, "refusing": refusing}
    # What a breaker does with so many failures is another test's matter.
    llm = {"MODELS": models, "MAX_ANSWER_CHARS": MAX_CHARS, "BREAKER_FAILURES": 1000}
    with Server(server_env | settings(LLM=llm)) as server:
        yield server
        no_traceback(server)
        assert "sk-secret" not in server.log_text()
        assert "sk-test" not in server.log_text()


@dataclass
class Case:
    """A script, and how its turn must end. `requests`: how often the provider was asked."""

    name: str
    script: list[Action]
    code: str
    content: str = ""
    requests: int = 1
    estimated: bool = True
    ends: str = field(default="failed")


MEGABYTE = "é" * 500_000
FAULTS = [
    Case("401", [status(401)], "provider_misconfigured"),
    Case("429", [status(429, headers={"Retry-After": "0.2"})], "provider_rate_limited", requests=2),
    Case("400", [status(400)], "provider_refused"),
    Case("500", [status(500)], "provider_unavailable", requests=2),
    Case("529", [status(529)], "provider_unavailable", requests=2),
    Case("hang-before-head", [hang()], "provider_timeout"),
    Case("hang-before-token", [begin(), role(), hang()], "provider_timeout"),
    Case("hang-between", [text("so ", "far "), hang()], "provider_timeout", "so far "),
    Case("cut-before", [begin(), cut()], "provider_unavailable", requests=2),
    Case("cut-between", [text("so ", "far "), cut()], "provider_truncated", "so far "),
    Case("no-finish", [text("so ", "far "), done()], "provider_truncated", "so far "),
    Case(
        "error-in-stream",
        [text("so far "), stream_error(message="sk-secret", type="x")],
        "provider_truncated",
        "so far ",
    ),
    Case("broken-json", [text("so far "), raw(b"data: {broken\n\n"), ok()], "provider_bad_response", "so far "),
    Case(
        "broken-utf8",
        [text("so far "), raw(b'data: {"choices": "\xff\xfe"}\n\n'), ok()],
        "provider_bad_response",
        "so far ",
    ),
    Case("not-a-stream", [status(200, body="hello")], "provider_bad_response"),
]
ODDITIES = [
    Case("nul", [text("a\0b"), ok()], "", "a\ufffdb", estimated=False, ends="complete"),
    Case("lone-surrogate", [text("a\ud83d", "b"), ok()], "", "a\ufffdb", estimated=False, ends="complete"),
    Case("cut-surrogates", [text("a\ud83d", "\ude42b"), ok()], "", "a🙂b", estimated=False, ends="complete"),
    Case(
        "bytewise",
        [bytewise("grün 🙂"), finish(), usage(7, 3), done()],
        "",
        "grün 🙂",
        estimated=False,
        ends="complete",
    ),
    Case("no-usage", [text("well"), finish(), done()], "", "well", ends="complete"),
    Case("no-done", [text("well"), finish(), usage()], "", "well", estimated=False, ends="complete"),
    Case("megabyte", [text(MEGABYTE), ok()], "", MEGABYTE, estimated=False, ends="complete"),
    Case("many-tiny", [tokens(4_000, "x"), ok()], "", "x" * 4_000, estimated=False, ends="complete"),
    Case("empty", [role(), ok()], "", "", estimated=False, ends="complete"),
    Case("endless", [endless("y" * 50_000)], "", "y" * MAX_CHARS, ends="complete"),
]


@pytest.mark.parametrize("case", FAULTS + ODDITIES, ids=lambda case: case.name)
async def test_a_fault_of_the_provider_has_a_typed_end(
    impatient: Server, person: Person, provider: ScriptedProvider, case: Case
) -> None:
    name = f"fault-{case.name}"
    provider.script(name, *case.script)
    session_id = person.new_session(impatient)
    async with person.client(impatient, session_id) as client:
        row = await client.ask(f"[[{name}]]")
        assert (row["status"], row["error_code"]) == (case.ends, case.code)
        assert row["content"] == case.content
        assert len(provider.exchanges(name)) == case.requests
        after = await client.ask("and now?")
        assert after["status"] == "complete"
        await oracle.check(session_id, client)
        log = await oracle.log_of(row["id"])
        assert log["input_tokens"] > 0
        assert log["usage_estimated"] == case.estimated
        assert (log["output_tokens"] > 0) == bool(case.content)
        assert log["error_category"] == case.code
        assert log["response_text"] == case.content
        assert log["provider"] == "openai"
        assert (client.counts["delta"] <= 60 * (client.arrivals[-1] - client.arrivals[0] + 1)) or case.name == "endless"


async def test_a_refused_connection_has_a_typed_end(impatient: Server, person: Person) -> None:
    session_id = person.new_session(impatient)
    await oracle.give_workflow(session_id, [{"type": "prompt"}, {"type": "llm", "model": "refusing"}])
    async with person.client(impatient, session_id) as client:
        row = await client.ask("is anybody there?")
        assert (row["status"], row["error_code"]) == ("failed", "provider_unavailable")
        await oracle.give_workflow(session_id, [{"type": "prompt"}, {"type": "llm"}])
        assert (await client.ask("and now?"))["status"] == "complete"
        await oracle.check(session_id, client)


async def test_a_providers_fault_is_over_with_its_retry(
    impatient: Server, person: Person, provider: ScriptedProvider
) -> None:
    provider.script_tries("once-429", [status(429, headers={"Retry-After": "0.3"})], [text("at last"), ok()])
    session_id = person.new_session(impatient)
    async with person.client(impatient, session_id) as client:
        began = time.monotonic()
        row = await client.ask("[[once-429]]")
        assert (row["status"], row["content"]) == ("complete", "at last")
        assert time.monotonic() - began >= 0.3
        await oracle.check(session_id, client)


async def test_a_hanging_provider_holds_nobody_else_up(
    impatient: Server, person: Person, provider: ScriptedProvider
) -> None:
    gates = [Gate() for _ in range(20)]
    for number, gate in enumerate(gates):
        provider.script(f"held-{number}", wait(gate), ok())
    held = []
    for number in range(20):
        session_id = await asyncio.to_thread(person.new_session, impatient)
        client = person.client(impatient, session_id)
        await client.connect()
        held.append((session_id, client, await client.send(f"[[held-{number}]]")))
    async with person.client(impatient, await asyncio.to_thread(person.new_session, impatient)) as client:
        began = time.monotonic()
        assert (await client.ask("quick"))["status"] == "complete"
        assert time.monotonic() - began < 1
    for session_id, client, ack in held:
        assert (await client.answer(ack["answer_id"]))["error_code"] == "provider_timeout"
        await oracle.check(session_id, client)
        await client.disconnect()
