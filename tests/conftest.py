"""Fixtures over real parts: PostgreSQL, Valkey, server processes, a scripted provider, users."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth import get_user_model
from django.test.utils import setup_databases

from accounts import tokens
from accounts.access import Caller, caller_of
from tests.support import services
from tests.support.client import Client
from tests.support.server import Server, rest


@pytest.fixture(scope="session")
def redis_url() -> str:
    return services.environment()["REDIS_URL"]


@pytest.fixture(scope="session")
def django_db_setup(django_test_environment: None, django_db_blocker: Any) -> None:
    """The test database, also for tests that only reach it through a server; it goes away with its PostgreSQL."""
    with django_db_blocker.unblock():
        setup_databases(verbosity=0, interactive=False)


@pytest.fixture(scope="session")
def live_database(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """The test database, open to this process outside of test transactions: live servers write it too."""
    with django_db_blocker.unblock():
        yield


@pytest.fixture(scope="session")
def provider() -> Iterator[Any]:
    """The scripted OpenAI-compatible server; see tests/support/scripted_provider.py."""
    from tests.support.scripted_provider import ScriptedProvider

    with ScriptedProvider() as server:
        yield server


@pytest.fixture(scope="session")
def server_env(provider: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a server process under test gets: the test database, the scripted provider."""
    given = services.environment()
    base, _, _ = given["DATABASE_URL"].rpartition("/")
    return {
        "DATABASE_URL": f"{base}/{services.TEST_DATABASE}",
        "REDIS_URL": given["REDIS_URL"],
        "LLM_PROVIDER": "openai",
        "OPENAI_BASE_URL": provider.base_url,
        "OPENAI_API_KEY": "sk-test-not-a-key",
        "OPENAI_MODEL": "scripted",
        "FAULTS_FILE": str(tmp_path_factory.mktemp("faults") / "hit"),
        "DATA_DIR": str(tmp_path_factory.mktemp("data")),
        "LOG_LEVEL": "INFO",
    }


@pytest.fixture(scope="session")
def servers(live_database: None, server_env: dict[str, str]) -> Iterator[tuple[Server, Server]]:
    """Two server processes on one database and one Redis."""
    with side_by_side(Server(server_env), Server(server_env)) as (first, second):
        yield first, second


@pytest.fixture
def spawn(live_database: None, server_env: dict[str, str]) -> Iterator[Callable[..., Server]]:
    """Start a server process of one's own: `spawn(kind="daphne", env={…})`."""
    started: list[Server] = []

    def start(*, env: dict[str, str] | None = None, **options: Any) -> Server:
        server = Server(server_env | (env or {}), **options)
        started.append(server)
        return server.start()

    yield start
    for server in started:
        server.__exit__(None, None, None)


@contextmanager
def side_by_side(*servers: Server) -> Iterator[tuple[Server, ...]]:
    """Launch all, then wait for all."""
    with ExitStack() as stack:
        for server in servers:
            stack.push(server.__exit__)
            server.launch()
        for server in servers:
            server.wait_ready()
        yield servers


@dataclass
class Person:
    """A user with a token."""

    user: Any
    token: str
    caller: Caller

    def new_session(self, server: Server, **body: Any) -> str:
        return str(rest(server, self.token, "POST", "/sessions", json=body)["id"])

    def client(self, server: Server, session_id: str) -> Client:
        return Client(server.socket_url(session_id), token=self.token)


@pytest.fixture
def person(live_database: None) -> Person:
    return make_person()


def make_person() -> Person:
    name = f"u{uuid4().hex[:12]}"
    user = get_user_model().objects.create_user(name, f"{name}@example.org", "correct horse")
    return Person(user, tokens.mint(user), caller_of(user))


@pytest.fixture
def make(live_database: None) -> Callable[[], Person]:
    return make_person


@pytest.fixture
def hit_file(server_env: dict[str, str]) -> Iterator[Path]:
    """Where a fault says that it happened."""
    file = Path(server_env["FAULTS_FILE"])
    file.unlink(missing_ok=True)
    yield file
    file.unlink(missing_ok=True)
