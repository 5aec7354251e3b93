"""The services together: announced, switched off by the environment, one run for each DATA_DIR."""

import http.client
import json
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from django_chain.embedded import model
from django_chain.embedded.app_server import choose_port
from django_chain.embedded.errors import Misconfigured
from django_chain.embedded.lock import OnlyRun
from django_chain.embedded.model_server import ModelServer
from django_chain.embedded.stack import Stack

_REAL = {
    "DATABASE_URL": "postgres://db.example/chain",
    "REDIS_URL": "redis://cache.example/0",
    "OPENAI_API_KEY": "secret",
}


def _ask(server: ModelServer, key: str, question: str = "Say hello.") -> tuple[int, Any]:
    parts = urlsplit(server.url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=60)
    body = json.dumps({"model": "any", "messages": [{"role": "user", "content": question}], "max_tokens": 4})
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    connection.request("POST", f"{parts.path}/chat/completions", body, headers)
    response = connection.getresponse()
    found = response.status, json.loads(response.read())
    connection.close()
    return found


def test_the_model_answers_in_the_openai_protocol_to_who_has_the_key(tmp_path: Path) -> None:
    with ModelServer(tmp_path) as server:
        status, answer = _ask(server, server.key)
        assert status == 200
        assert answer["usage"]["completion_tokens"] > 0
        assert _ask(server, "wrong")[0] == 401
        # Its window is the one that the settings are told of, and each answer may have all of it.
        status, refusal = _ask(server, server.key, "word " * model.CONTEXT)
        assert (status, refusal["error"]["n_ctx"]) == (400, model.CONTEXT)
    assert not server.running


def test_running_services_are_announced_to_their_owner_alone_and_withdrawn(tmp_path: Path) -> None:
    ready: list[str] = []
    environ = {"OPENAI_API_KEY": "secret"}
    with Stack(tmp_path, environ=environ, report=lambda name, _: ready.append(name)) as stack:
        stack.announce(CHAIN_URL="http://127.0.0.1:1")
        file = tmp_path / "services.json"
        found = json.loads(file.read_text())
        assert file.stat().st_mode & 0o777 == 0o600
    assert sorted(ready) == ["PostgreSQL", "Valkey"]
    assert set(found) == {"DATABASE_URL", "REDIS_URL", "CHAIN_URL"}
    assert not file.exists()
    assert not any(service.running for service in stack.services.values())


def test_a_real_service_takes_the_place_of_each_part(tmp_path: Path) -> None:
    with Stack(tmp_path, environ=_REAL) as stack:
        assert not stack.services
        # The addresses are for other commands; the provider's key stays where it was.
        assert stack.variables == {name: _REAL[name] for name in ("DATABASE_URL", "REDIS_URL")}


def test_a_second_run_in_the_same_directory_is_refused(tmp_path: Path) -> None:
    with (
        OnlyRun(tmp_path),
        pytest.raises(Misconfigured, match=r"in use by another run \(process \d+\)"),
        OnlyRun(tmp_path),
    ):
        pass
    with OnlyRun(tmp_path):
        pass


def test_a_run_that_is_ending_is_waited_for(tmp_path: Path) -> None:
    told: list[str] = []
    ended = threading.Event()
    with OnlyRun(tmp_path) as first:
        first.ending()

        def follow() -> None:
            with OnlyRun(tmp_path, waiting=lambda: told.append("waiting")):
                ended.set()

        second = threading.Thread(target=follow)
        second.start()
        assert not ended.wait(0.3)
    second.join(5)
    assert ended.is_set()
    assert told == ["waiting"]


def test_what_had_started_is_stopped_when_another_part_fails(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir(parents=True)
    stack = Stack(tmp_path, environ={"OPENAI_API_KEY": "secret"})
    with pytest.raises(Exception, match="PostgreSQL ended while it started"), stack:
        pass
    assert not any(service.running for service in stack.services.values())


@pytest.mark.parametrize("asked", ["eighty", "0", "70000", "-1"])
def test_a_port_that_is_none_is_refused(asked: str) -> None:
    with pytest.raises(Misconfigured, match="it must be a number from 1 to 65535"):
        choose_port(asked)


def test_a_taken_port_is_refused_when_asked_for_and_passed_over_when_not(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Misconfigured, match="taken"):
            choose_port(str(port))
        monkeypatch.setattr("django_chain.embedded.app_server.DEFAULT_PORT", port)
        assert choose_port("") > port
