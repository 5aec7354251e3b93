"""A scripted provider over real HTTP, and aliases that point to it."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from langchain_core.messages import HumanMessage
from pytest_django import Settings

from llm import aliases, health
from llm.events import Event, ModelFinished, ModelStarted, Text
from llm.router import stream_route
from llm.state import RunContext
from tests.support.scripted_provider import ScriptedProvider

NOBODY = UUID(int=0)


@pytest_asyncio.fixture(scope="session", autouse=True)
async def _connections_are_closed() -> AsyncIterator[None]:
    yield
    await aliases.close()


@pytest.fixture(autouse=True)
def _models_are_well() -> None:
    """No breaker is open because of the test before."""
    health.forget()


@pytest.fixture(autouse=True)
def _scripts_are_forgotten(provider: ScriptedProvider) -> Iterator[None]:
    """Each test begins without those of the one before."""
    yield
    provider.forget()


Configure = Callable[..., None]


@pytest.fixture
def configure(settings: Settings) -> Configure:
    """Set the LLM section: `configure(default={…alias…}, MAX_ANSWER_CHARS=…)`."""

    def set_llm(**keys: Any) -> None:
        aliases = {name: alias for name, alias in keys.items() if not name.isupper()}
        rest = {name: value for name, value in keys.items() if name.isupper()}
        settings.DJANGO_CHAIN = {"LLM": {"MODELS": aliases, "DEFAULT_MODEL": next(iter(aliases)), **rest}}

    return set_llm


@pytest.fixture
def scripted_alias(provider: ScriptedProvider, configure: Configure) -> Callable[..., None]:
    """Make the scripted provider the default model, with short bounds; keys of the alias may be given."""

    def set_alias(*, options: dict[str, Any] | None = None, llm: dict[str, Any] | None = None, **keys: Any) -> None:
        bounds = {"FIRST_TOKEN_TIMEOUT": 5.0, "BETWEEN_TOKENS_TIMEOUT": 5.0, "TOTAL_TIMEOUT": 20.0, "MAX_RETRIES": 0}
        place = {"base_url": provider.base_url, "api_key": "sk-test", **(options or {})}
        alias = {"PROVIDER": "openai", "MODEL": "scripted", "OPTIONS": place, **bounds, **keys}
        configure(default=alias, **(llm or {}))

    set_alias()
    return set_alias


@dataclass
class Outcome:
    """What a call came to."""

    events: list[Event] = field(default_factory=list)
    error: Exception | None = None

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, Text))

    @property
    def started(self) -> ModelStarted:
        return next(event for event in self.events if isinstance(event, ModelStarted))

    @property
    def finished(self) -> ModelFinished:
        assert self.error is None, self.error
        return next(event for event in self.events if isinstance(event, ModelFinished))


def stream(content: str, alias: str = "") -> AsyncGenerator[Event, None]:
    """The events of asking an alias or a route, as the workspace of nobody."""
    return stream_route(alias, [HumanMessage(content)], run=RunContext.unlogged(NOBODY))


async def outcome_of(content: str, alias: str = "") -> Outcome:
    outcome = Outcome()
    try:
        async with aclosing(stream(content, alias)) as events:
            async for event in events:
                outcome.events.append(event)
    except Exception as error:  # noqa: BLE001  the outcome is what is tested
        outcome.error = error
    return outcome


Ask = Callable[[str], Awaitable[Outcome]]


@pytest.fixture
def ask() -> Ask:
    """Send one user message to the default model, to the end."""
    return outcome_of
