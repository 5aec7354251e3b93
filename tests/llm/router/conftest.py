"""Routes over two scripted providers, and a journal of the requests."""

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
from langchain_core.messages import HumanMessage

from llm import aliases, health
from llm.configuration import Configuration
from llm.events import Event
from llm.health import Health
from llm.journal import Call, Closed
from llm.models import CallStatus
from llm.router import stream_route
from llm.state import RunContext
from tests.llm.conftest import NOBODY, Configure, Outcome
from tests.support import scripted_provider as act
from tests.support.scripted_provider import Action, ScriptedProvider

BOUNDS = {"FIRST_TOKEN_TIMEOUT": 5.0, "BETWEEN_TOKENS_TIMEOUT": 5.0, "TOTAL_TIMEOUT": 20.0, "MAX_RETRIES": 0}


@pytest.fixture(scope="module")
def _another() -> Iterator[ScriptedProvider]:
    with ScriptedProvider() as server:
        yield server


@pytest.fixture
def second(_another: ScriptedProvider) -> Iterator[ScriptedProvider]:
    yield _another
    _another.forget()


Routes = Callable[..., None]


def model(base_url: str, **keys: Any) -> dict[str, Any]:
    options = {"base_url": base_url, "api_key": "sk-test"}
    return {"PROVIDER": "openai", "MODEL": "scripted", "OPTIONS": options, **BOUNDS, **keys}


@pytest.fixture
def route(provider: ScriptedProvider, second: ScriptedProvider, configure: Configure) -> Routes:
    """Make the default a route over `one` and `two`; keys of the models and of the route may be given."""

    def set_route(
        *, one: dict[str, Any] | None = None, two: dict[str, Any] | None = None, llm: Any = None, **keys: Any
    ) -> None:
        models = {"one": model(provider.base_url) | (one or {}), "two": model(second.base_url) | (two or {})}
        over = {"MODELS": ["one", "two"], "STRATEGY": "fallback", **keys}
        configure(**models, **({"DEFAULT_MODEL": "both", "ROUTES": {"both": over}} | (llm or {})))

    set_route()
    return set_route


@dataclass
class Ledger:
    """A journal that the test reads."""

    opened: list[Call] = field(default_factory=list)
    closed: list[Closed] = field(default_factory=list)
    #: Raised instead of opening the call of this number.
    refuses: dict[int, Exception] = field(default_factory=dict)
    #: What a budget holds back for an answer.
    held: int | None = None

    def output_bound(self, own: int | None) -> int | None:
        return own or self.held

    async def open(self, call: Call) -> None:
        if call.number in self.refuses:
            raise self.refuses[call.number]
        self.opened.append(call)

    def close(self, closed: Closed) -> None:
        self.closed.append(closed)

    @property
    def rows(self) -> list[tuple[int, str, CallStatus | None, str]]:
        assert [one.call for one in self.closed] == self.opened
        return [(one.call.number, one.call.alias, one.status, one.error_category) for one in self.closed]


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


Stream = Callable[..., AsyncGenerator[Event, None]]


@pytest.fixture
def stream(ledger: Ledger) -> Stream:
    def start(content: str, name: str = "", *, workspace: UUID = NOBODY, **more: Any) -> AsyncGenerator[Event, None]:
        run = RunContext(Configuration(workspace_id=workspace, generation=0), ledger)
        return stream_route(name, [HumanMessage(content)], run=run, **more)

    return start


@pytest.fixture
def ask(stream: Stream) -> Callable[..., Any]:
    async def to_the_end(content: str, name: str = "", **more: Any) -> Outcome:
        outcome = Outcome()
        try:
            async with aclosing(stream(content, name, **more)) as events:
                async for event in events:
                    outcome.events.append(event)
        except Exception as error:  # noqa: BLE001  the outcome is what is tested
            outcome.error = error
        return outcome

    return to_the_end


def health_of(alias: str) -> Health:
    return health.of(aliases.resolve(alias))


def tell(provider: ScriptedProvider, second: ScriptedProvider, *script: Action) -> str:
    """A question that the first answers with `script`, the second well."""
    second.script("q", act.text("from ", "two"), act.ok())
    return provider.script("q", *script)
