"""A bug of ours behind a command is a typed answer and a typed close, never a socket that stays open and silent."""

import asyncio
import json
import logging
from types import SimpleNamespace
from typing import Any

import pytest

from accounts.access import Caller
from chat import replay
from chat.connection import Connection
from chat.protocol import Close
from chat.replay import Credentials
from kernel.errors import NotFound


class Stage:
    """A connection without a server: what it sent, and how it closed."""

    def __init__(self, session: Any) -> None:
        self.sent: list[dict[str, Any]] = []
        self.closed: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        hub = SimpleNamespace(join=self._nothing, leave=self._nothing, epoch="e", store_up=True)
        flusher = SimpleNamespace(streams={})
        runner = SimpleNamespace(flusher=flusher, send=self._broken)
        runtime: Any = SimpleNamespace(runner=runner, hub=hub, connections=set(), draining=False)
        self.connection = Connection(
            runtime,
            wanted=str(session),
            credentials=Credentials(token="t"),
            origin_allowed=True,
            send=self._send,
            close=self._close,
        )
        self.connection.open()

    async def _nothing(self, *_: Any) -> None:
        return None

    async def _broken(self, *_: Any, **__: Any) -> None:
        raise KeyError("a bug")

    async def _send(self, frame: str) -> None:
        self.sent.append(json.loads(frame))

    async def _close(self, code: int, reason: str) -> None:
        self.closed.set_result(code)


@pytest.fixture
def session() -> Any:
    return SimpleNamespace(id="01a20a55-9306-70a8-a0be-f73a6a79b6d5", title="", seq=0)


async def told(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    async with asyncio.timeout(5):
        assert await stage.closed == Close.RESTART
    assert stage.sent[-1] == {"type": "error", "code": "internal", "message": "Something went wrong on the server."}
    assert [record.message for record in caplog.records if record.levelno == logging.ERROR] == ["action=command_failed"]
    await stage.connection.leave()


async def test_a_bug_in_hello(session: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(replay, "enter", lambda *_: 1 / 0)
    stage = Stage(session.id)
    await stage.connection.receive('{"type": "hello"}')
    await told(stage, caplog)


async def test_a_bug_behind_a_message(
    session: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(replay, "enter", lambda *_: (Caller(user_id=1, name="ada"), session))
    monkeypatch.setattr("chat.outbox.Outbox.follow", lambda *_: None)
    stage = Stage(session.id)
    await stage.connection.receive('{"type": "hello"}')
    await stage.connection.receive('{"type": "message.send", "id": "a", "text": "b"}')
    await told(stage, caplog)


async def test_a_bug_in_the_writer_closes_the_socket(session: Any, caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage(session.id)

    async def broken(_: str) -> None:
        raise KeyError("a bug")

    stage.connection.outbox._send = broken
    await stage.connection.receive('{"type": "ping"}')
    async with asyncio.timeout(5):
        assert await stage.closed == Close.RESTART
    assert [record.message for record in caplog.records] == ["action=writer_failed"]
    await stage.connection.leave()


async def test_a_refusal_is_said_once_and_ends_the_talk(session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise NotFound

    monkeypatch.setattr(replay, "enter", refuse)
    stage = Stage(session.id)
    await stage.connection.receive('{"type": "hello"}')
    async with asyncio.timeout(5):
        assert await stage.closed == Close.FORBIDDEN
    for _ in range(3):
        await stage.connection.receive('{"type": "ping"}')
    await asyncio.sleep(0.05)
    assert [frame["code"] for frame in stage.sent] == ["not_found"]
    await stage.connection.leave()
