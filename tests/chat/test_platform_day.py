"""A day of the platform, seen from outside: a workflow from REST and in a chat, its prompt changed meanwhile, its
provider killed, and an account at the end that is the providers' own.
"""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx2 as httpx
import pytest

from kernel import database
from llm import prices
from llm.models import InteractionLog
from tests.conftest import Person
from tests.support import oracle
from tests.support.scripted_provider import ScriptedProvider, ok, text
from tests.support.server import Server
from tests.support.stage import no_traceback, settings

ANSWER = {"answer": "24 months", "sources": [1]}
SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "string"}, "sources": {"type": "array", "items": {"type": "integer"}}},
    "required": ["answer", "sources"],
    "additionalProperties": False,
}
WORKFLOW = {
    "schema": 1,
    "steps": [
        {"type": "memory"},
        {"type": "retrieve", "k": 2},
        {
            "type": "branch",
            "cases": [
                {
                    "when": {"field": "question", "op": "contains", "value": "warranty"},
                    "steps": [
                        {
                            "type": "parallel",
                            "branches": {
                                "fact": [
                                    {"type": "prompt", "template": "[[fact]] {passages} {question}"},
                                    {"type": "llm"},
                                ],
                                "tone": [{"type": "prompt", "template": "[[tone]] {question}"}, {"type": "llm"}],
                            },
                        },
                    ],
                }
            ],
            "default": [
                {
                    "type": "transform",
                    "function": "join",
                    "arguments": {"values": [{"from": "question"}]},
                    "output": "fact",
                }
            ],
        },
        {"type": "prompt", "name": "final"},
        {"type": "llm"},
        {"type": "parser", "parser": "json", "options": {"schema": SCHEMA}},
    ],
}


def final(words: str) -> dict[str, Any]:
    return {"langchain_type": "PromptTemplate", "template": f"[[final]] {words}: {{fact}} {{question}}"}


@pytest.fixture(scope="module")
def primary() -> Iterator[ScriptedProvider]:
    with ScriptedProvider() as provider:
        yield scripted(provider)


@pytest.fixture(scope="module")
def secondary() -> Iterator[ScriptedProvider]:
    with ScriptedProvider() as provider:
        yield scripted(provider)


def scripted(provider: ScriptedProvider) -> ScriptedProvider:
    provider.script("fact", text("24 ", "months"), ok())
    provider.script("tone", text("friendly"), ok())
    provider.script("final", text(*re.findall(r"\s*\S+", json.dumps(ANSWER))), ok())
    return provider


@pytest.fixture(scope="module")
def server(
    live_database: None, server_env: dict[str, str], primary: ScriptedProvider, secondary: ScriptedProvider
) -> Iterator[Server]:
    def model(name: str, provider: ScriptedProvider) -> dict[str, Any]:
        options = {"base_url": provider.base_url, "api_key": "sk-test-not-a-key"}
        return {"PROVIDER": "openai", "MODEL": name, "OPTIONS": options, "MAX_RETRIES": 0}

    models = {"first": model("day-first", primary), "second": model("day-second", secondary)}
    llm = {
        "MODELS": models,
        "ROUTES": {"house": {"MODELS": ["first", "second"]}},
        "DEFAULT_MODEL": "house",
        "BREAKER_FAILURES": 2,
    }
    with Server(server_env | settings(LLM=llm)) as started:
        yield started
        no_traceback(started)


@pytest.fixture
def api(server: Server, person: Person) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {person.token}"}
    with httpx.Client(base_url=f"{server.url}/api/v1", headers=headers, timeout=20) as client:
        yield client


def done(response: httpx.Response) -> Any:
    assert response.is_success, response.text
    return response.json()


def events_of(response: httpx.Response) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for block in response.text.strip().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(":"))
        if "event" in lines:
            found.append((lines["event"], json.loads(lines["data"])))
    return found


async def test_a_day_of_the_platform(
    server: Server, api: httpx.Client, person: Person, primary: ScriptedProvider, secondary: ScriptedProvider
) -> None:
    await database.run(have_prices)

    # A prompt and a workflow, by REST.
    done(api.post("/prompts", json={"name": "final", "prompt_template": final("one"), "activate": True}))
    done(api.post("/workflows", json={"name": "day", "workflow_definition": WORKFLOW, "activate": True}))

    # From REST, at once and as a stream.
    answer = done(api.post("/workflows/day/run", json={"question": "How long is the warranty?"}))
    assert (answer["status"], answer["output"]) == ("ok", ANSWER)
    seen = [step["type"] for step in answer["steps"]]
    assert {"retrieve", "branch", "parallel", "prompt", "llm", "parser"} <= set(seen)
    streamed = events_of(api.post("/workflows/day/run", json={"question": "The warranty?", "stream": True}))
    assert json.loads("".join(data["text"] for name, data in streamed if name == "text")) == ANSWER
    assert {"step", "text", "output", "done"} <= {name for name, _ in streamed}

    # In a chat; its prompt is edited, activated and rolled back while the chat goes on.
    session_id = done(api.post("/sessions", json={"workflow": "day"}))["id"]
    async with person.client(server, session_id) as client:
        await asks(client, "one", provider=primary)
        assert {"retrieve", "parallel", "llm"} <= {f["name"] for f in client.frames if f["type"] == "step"}
        second = done(api.post("/prompts", json={"name": "final", "prompt_template": final("two"), "activate": False}))
        await asks(client, "one", provider=primary)
        done(api.post(f"/prompts/{second['id']}/activate"))
        await asks(client, "two", provider=primary)
        done(api.post("/prompts/roll-back", json={"name": "final"}))
        row = await asks(client, "one", provider=primary)
        assert (await oracle.log_of(row["id"]))["model_name"] == "day-first"

        # The provider dies; people don't notice.
        primary.kill()
        for _ in range(3):
            row = await asks(client, "one", provider=secondary)
        log = await oracle.log_of(row["id"])
        assert (log["status"], log["model_name"]) == ("ok", "day-second")
        await oracle.check(session_id, client)

    # The account of the day is the providers' own.
    rows = await database.run(lambda: list(InteractionLog.objects.filter(workspace=person.user.personal_workspace)))
    answered = [row for row in rows if row.status == "ok"]
    exchanges = primary.exchanges() + secondary.exchanges()
    assert len(answered) == len(exchanges)
    assert sum(row.input_tokens for row in answered) == 11 * len(exchanges)
    assert sum(row.output_tokens for row in answered) == sum(exchange.tokens_sent for exchange in exchanges)
    assert {row.error_category for row in rows if row.status == "failed"} == {"provider_unavailable"}
    spend = done(api.get("/spend", params={"by": "model"}))["groups"]
    assert sum(row["calls"] for row in spend) == len(rows)
    assert sum(Decimal(row["cost"] or 0) for row in spend) == sum(row.cost or 0 for row in rows)
    for name, provider in (("day-first", primary), ("day-second", secondary)):
        mine = provider.exchanges()
        cost = Decimal("2.5") * 11 * len(mine) + 10 * sum(exchange.tokens_sent for exchange in mine)
        assert sum(row.cost or 0 for row in answered if row.model_name == name) == cost / 1_000_000


def have_prices() -> None:
    for model in ("day-first", "day-second"):
        prices.set_price(
            "openai", model, input=Decimal("2.5"), output=Decimal(10), valid_from=datetime(2026, 1, 1, tzinfo=UTC)
        )


async def asks(client: Any, words: str, *, provider: ScriptedProvider) -> dict[str, Any]:
    """Ask in the chat; the provider was asked with the prompt's version that says `words`."""
    row: dict[str, Any] = await client.ask("How long is the warranty?")
    assert (row["status"], json.loads(row["content"])) == ("complete", ANSWER), row
    assert provider.exchanges("final")[-1].messages[-1]["content"].startswith(f"[[final]] {words}: 24 months")
    return row
