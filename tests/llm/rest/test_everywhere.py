"""What is changed at one server process, or by a command, holds for the next run of another one: there is no wait."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import httpx2 as httpx
import pytest

from kernel import database
from llm import prices
from tests.conftest import Person
from tests.support.server import Server

#: Its price is one for all workspaces, so no other test may have the model.
MODEL = "followed-everywhere"


class Place:
    """One server process, asked by one person."""

    def __init__(self, server: Server, person: Person) -> None:
        headers = {"Authorization": f"Bearer {person.token}"}
        self.client = httpx.Client(base_url=f"{server.url}/api/v1", headers=headers, timeout=20)

    def set(self, method: str, path: str, **body: Any) -> Any:
        response = self.client.request(method, path, json=body or None)
        assert response.is_success, response.text
        return response.json() if response.content else None

    def say(self, template: str) -> None:
        steps = [{"type": "prompt", "template": template}, {"type": "llm"}]
        self.set("POST", "/workflows", name="followed", workflow_definition=steps)

    def run(self) -> httpx.Response:
        return self.client.post("/workflows/followed/run", json={"question": "why?"})


@pytest.fixture
def places(servers: tuple[Server, Server], person: Person) -> Iterator[tuple[Place, Place]]:
    first, second = (Place(server, person) for server in servers)
    with first.client, second.client:
        first.set("PUT", "/models/default", model=MODEL)
        first.say("one: {question}")
        # Both have read what the workspace has configured, and keep it.
        assert [place.run().json()["text"] for place in (first, second)] == ["echo: one: why?"] * 2
        yield first, second


def test_a_workflow(places: tuple[Place, Place]) -> None:
    first, second = places
    first.say("two: {question}")
    assert second.run().json()["text"] == "echo: two: why?"
    second.set("POST", "/workflows/roll-back", name="followed")
    assert first.run().json()["text"] == "echo: one: why?"


def test_a_budget(places: tuple[Place, Place]) -> None:
    first, second = places
    budget = first.set("POST", "/budgets", kind="tokens_per_day", limit=1)
    refused = second.run()
    assert (refused.status_code, refused.json()["code"]) == (429, "budget_exceeded")
    second.set("DELETE", f"/budgets/{budget['id']}")
    assert first.run().is_success


async def test_a_price(places: tuple[Place, Place]) -> None:
    first, second = places
    assert [place.run().json()["usage"]["cost"] for place in (first, second)] == [None, None]
    await database.run(lambda: prices.set_price("openai", MODEL, input=Decimal(1), output=Decimal(2)))
    costs = [Decimal(place.run().json()["usage"]["cost"]) for place in (first, second)]
    assert all(cost > 0 for cost in costs)
