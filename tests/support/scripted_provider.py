"""A scripted provider over HTTP: every way in which a provider can fail, at the moment a test chooses.

    with ScriptedProvider() as provider:
        gate = Gate()
        provider.script("slow", text("Hello "), wait(gate), text("world"), ok())
        # … send a message that contains "[[slow]]" to provider.base_url
        exchange = provider.wait_for("slow")
        exchange.disconnected.wait(1)

It speaks OpenAI's protocol, or another `Dialect` (tests/support/scripted_google.py).
It runs in a thread with an event loop of its own, so that a blocked test loop can't hold it up, and a test of either
kind can use it. What it notices (`Exchange`, `Gate`) are threading events; an async test awaits them with `until`.
Alone: `python -m tests.support.scripted_provider --port 8081`.
"""

import argparse
import asyncio
import json
import re
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

_MARKER = re.compile(r"\[\[([\w-]+)\]\]")
_REASONS = {200: "OK", 307: "Temporary Redirect", 401: "Unauthorized", 429: "Too Many Requests"}


async def until(event: threading.Event, timeout: float = 5) -> bool:
    """Await a threading event from an async test."""
    return await asyncio.to_thread(event.wait, timeout)


class Gate:
    """A place in a script where the server waits for the test."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self._open = threading.Event()

    def release(self) -> None:
        self._open.set()

    def is_open(self) -> bool:
        return self._open.is_set()

    async def passed(self) -> None:
        self.reached.set()
        while not self._open.is_set():
            await asyncio.sleep(0.002)


@dataclass(eq=False)
class Exchange:
    """One request: what came, what was sent, and when the client hung up. Times are `time.monotonic`."""

    name: str
    body: dict[str, Any]
    headers: dict[str, str]
    #: The same number means the same TCP connection.
    connection: int
    received_at: float = field(default_factory=time.monotonic)
    tokens_sent: int = 0
    disconnected_at: float | None = None
    #: The client closed the connection before the script's end.
    disconnected: threading.Event = field(default_factory=threading.Event)
    #: The script's end was reached.
    finished: threading.Event = field(default_factory=threading.Event)

    @property
    def messages(self) -> list[dict[str, Any]]:
        return list(self.body.get("messages", []))


class _Cut(Exception):
    """The script closes the connection."""


class Reply:
    """What a script acts on: the response, as it is being sent."""

    def __init__(self, writer: asyncio.StreamWriter, exchange: Exchange, dialect: "Dialect") -> None:
        self._writer = writer
        self.exchange = exchange
        self.dialect = dialect
        self._begun = False

    async def begin(self, status: int = 200, headers: dict[str, str] | None = None) -> None:
        if self._begun:
            return
        self._begun = True
        lines = {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked", **(headers or {})}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self._writer.write(f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}\r\n{head}\r\n".encode())
        await self._writer.drain()

    async def raw(self, data: bytes) -> None:
        """One HTTP chunk."""
        await self.begin()
        self._writer.write(b"%x\r\n%s\r\n" % (len(data), data))
        await self._writer.drain()

    async def event(self, payload: object) -> None:
        await self.raw(f"data: {json.dumps(payload)}\n\n".encode())

    async def token(self, piece: str) -> None:
        await self.event(self.dialect.token(piece))
        self.exchange.tokens_sent += 1

    async def end(self) -> None:
        await self.raw(b"")


class Dialect(Protocol):
    """How a provider's protocol says what scripts say; events are JSON."""

    #: What follows host and port in the base URL.
    path: str
    #: The last event of a stream.
    done: bytes

    def serves(self, path: str) -> bool: ...
    def asked(self, body: dict[str, Any]) -> str:
        """The text of the last user message."""

    def role(self) -> object: ...
    def token(self, piece: str) -> object: ...
    def tool(self, name: str, args: dict[str, Any]) -> object: ...
    def finish(self, reason: str) -> object: ...
    def usage(self, body: dict[str, Any], *, prompt: int, completion: int, cached: int) -> object | None: ...
    def error(self, code: int, message: str) -> object: ...


class OpenAi:
    """OpenAI's chat completions, which most servers speak."""

    path = "/v1"
    done = b"data: [DONE]\n\n"

    def serves(self, path: str) -> bool:
        return path.endswith("/chat/completions")

    def asked(self, body: dict[str, Any]) -> str:
        return str(next((m["content"] for m in reversed(body["messages"]) if m["role"] == "user"), ""))

    def role(self) -> object:
        return _chunk({"role": "assistant", "content": ""})

    def token(self, piece: str) -> object:
        return _chunk({"content": piece})

    def tool(self, name: str, args: dict[str, Any]) -> object:
        function = {"name": name, "arguments": json.dumps(args)}
        return _chunk({"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": function}]})

    def finish(self, reason: str) -> object:
        return _chunk({}, reason)

    def usage(self, body: dict[str, Any], *, prompt: int, completion: int, cached: int) -> object | None:
        if not (body.get("stream_options") or {}).get("include_usage"):
            return None
        figures: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": completion}
        if cached:
            figures["prompt_tokens_details"] = {"cached_tokens": cached}
        return {**_chunk({}), "choices": [], "usage": {**figures, "total_tokens": prompt + completion}}

    def error(self, code: int, message: str) -> object:
        return {"error": {"message": message, "type": "scripted", "code": None}}


def _chunk(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return {"id": "scripted", "object": "chat.completion.chunk", "created": 0, "model": "scripted", "choices": [choice]}


Action = Callable[[Reply], Awaitable[None]]


def text(*pieces: str) -> Action:
    """One chunk for each piece. Lone surrogates go out as \\ud83d escapes, NUL as \\u0000."""

    async def act(reply: Reply) -> None:
        for piece in pieces:
            await reply.token(piece)

    return act


def tokens(count: int, piece: str = "word ", *, every: float = 0.0) -> Action:
    """`count` chunks, one each `every` seconds."""

    async def act(reply: Reply) -> None:
        for _ in range(count):
            await reply.token(piece)
            await asyncio.sleep(every)

    return act


def endless(piece: str = "word ", *, every: float = 0.0) -> Action:
    return tokens(10**9, piece, every=every)


def role() -> Action:
    """The empty chunk with which many servers begin."""

    async def act(reply: Reply) -> None:
        await reply.event(reply.dialect.role())

    return act


def tool(name: str, **args: Any) -> Action:
    """The model asks for a tool."""

    async def act(reply: Reply) -> None:
        await reply.event(reply.dialect.tool(name, args))

    return act


def delta(**content: Any) -> Action:
    """A chunk with any delta of OpenAI's protocol."""

    async def act(reply: Reply) -> None:
        await reply.event(_chunk(content))

    return act


def wait(gate: Gate) -> Action:
    async def act(_: Reply) -> None:
        await gate.passed()

    return act


def pause(seconds: float) -> Action:
    async def act(_: Reply) -> None:
        await asyncio.sleep(seconds)

    return act


def hang() -> Action:
    """Say nothing more and keep the connection."""
    return pause(3600)


def begin() -> Action:
    """Send the response's head, and nothing after it."""

    async def act(reply: Reply) -> None:
        await reply.begin()

    return act


def status(code: int, *, headers: dict[str, str] | None = None, body: object = None) -> Action:
    """An error response instead of a stream."""

    async def act(reply: Reply) -> None:
        await reply.begin(code, {"Content-Type": "application/json", **(headers or {})})
        error = reply.dialect.error(code, f"scripted {code} sk-secret-in-an-error")
        await reply.raw(json.dumps(error if body is None else body).encode())

    return act


def cut() -> Action:
    """Close the connection in the middle of the response."""

    async def act(_: Reply) -> None:
        raise _Cut

    return act


def raw(*pieces: bytes) -> Action:
    """Bytes as they are, each in an HTTP chunk and a packet of its own."""

    async def act(reply: Reply) -> None:
        for piece in pieces:
            await reply.raw(piece)
            await asyncio.sleep(0.001)

    return act


def bytewise(piece: str) -> Action:
    """A token in plain UTF-8, sent byte by byte: every code point is cut over chunk borders."""

    async def act(reply: Reply) -> None:
        event = f"data: {json.dumps(reply.dialect.token(piece), ensure_ascii=False)}\n\n".encode()
        await raw(*(event[i : i + 1] for i in range(len(event))))(reply)

    return act


def stream_error(**error: Any) -> Action:
    """An `error` object in the stream, as gateways send it."""

    async def act(reply: Reply) -> None:
        await reply.event({"error": error})

    return act


def finish(reason: str = "stop") -> Action:
    async def act(reply: Reply) -> None:
        await reply.event(reply.dialect.finish(reason))

    return act


def usage(prompt: int = 11, completion: int | None = None, cached: int = 0) -> Action:
    """The usage chunk, if the client asked for one; by default it counts the tokens sent."""

    async def act(reply: Reply) -> None:
        counted = reply.exchange.tokens_sent if completion is None else completion
        figures = reply.dialect.usage(reply.exchange.body, prompt=prompt, completion=counted, cached=cached)
        if figures is not None:
            await reply.event(figures)

    return act


def done() -> Action:
    async def act(reply: Reply) -> None:
        if reply.dialect.done:
            await reply.raw(reply.dialect.done)

    return act


def ok(reason: str = "stop") -> Action:
    """A proper end: finish reason, usage, [DONE]."""

    async def act(reply: Reply) -> None:
        for action in (finish(reason), usage(), done()):
            await action(reply)

    return act


class ScriptedProvider:
    """The server. `base_url` is what a model's option of that name takes."""

    def __init__(self, port: int = 0, dialect: Dialect | None = None, otherwise: Sequence[Action] = ()) -> None:
        """`otherwise`: what a request without a script is answered with, in the place of an echo."""
        self._port = port
        self._dialect = dialect or OpenAi()
        self._otherwise = otherwise
        self._scripts: dict[str, list[Sequence[Action]]] = {}
        self._exchanges: list[Exchange] = []
        self._arrived = threading.Condition()
        self._connections = 0
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scripted-provider", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(5):
            raise RuntimeError("the scripted provider did not start")
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """End it in the middle of whatever it does; its port is closed from then on."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(5)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._port}{self._dialect.path}"

    def script(self, name: str, *actions: Action) -> str:
        """What a message with "[[name]]" is answered with. Returns that marker."""
        return self.script_tries(name, actions)

    def script_tries(self, name: str, *tries: Sequence[Action]) -> str:
        """A script for each further request with this marker; the last one stays."""
        self._scripts[name] = list(tries)
        return f"[[{name}]]"

    def exchanges(self, name: str | None = None) -> list[Exchange]:
        with self._arrived:
            return [exchange for exchange in self._exchanges if name in (None, exchange.name)]

    def wait_for(self, name: str, *, count: int = 1, timeout: float = 5) -> Exchange:
        """The `count`th request with this marker."""

        def seen() -> list[Exchange]:
            return [exchange for exchange in self._exchanges if exchange.name == name]

        with self._arrived:
            if not self._arrived.wait_for(lambda: len(seen()) >= count, timeout):
                raise AssertionError(f"no request {count} for {name!r}; seen: {[e.name for e in self._exchanges]}")
            return seen()[count - 1]

    def forget(self) -> None:
        """Drop scripts and exchanges, between tests."""
        with self._arrived:
            self._scripts.clear()
            self._exchanges.clear()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)
        self._port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._connections += 1
        try:
            await self._connection(reader, writer, self._connections)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        ahead = b""
        while True:
            ahead = ahead or await reader.readexactly(1)
            if ahead == b"\x16":  # a TLS greeting: this server speaks none
                return
            method, path, headers = _head(ahead + await reader.readuntil(b"\r\n\r\n"))
            body = json.loads(await reader.readexactly(int(headers.get("content-length", 0))) or b"{}")
            if method != "POST" or not self._dialect.serves(path):
                await _simple(writer, path)
                ahead = await reader.readexactly(1)
                continue
            # What a failed answer left unanswered is sent before the next message, as a paragraph of it; but where a
            # summary is asked for, it is in the messages that come before the order.
            told = self._dialect.asked(body)
            newest = told.rpartition("\n\n")[2]
            asked = told if newest.startswith("Write the notes") else newest
            marker = _MARKER.search(asked)
            exchange = Exchange(marker[1] if marker else "", body, headers, number)
            actions = self._actions(exchange, asked)
            with self._arrived:
                self._exchanges.append(exchange)
                self._arrived.notify_all()
            # The client sends nothing while it reads an answer: a byte is its next request, an end is its hanging up.
            hung_up = asyncio.create_task(reader.read(1))
            playing = asyncio.create_task(_play(actions, Reply(writer, exchange, self._dialect)))
            try:
                await asyncio.wait({hung_up, playing}, return_when=asyncio.FIRST_COMPLETED)
                if not playing.done():
                    _note_disconnect(exchange)
                    return
                if isinstance(playing.exception(), ConnectionError):
                    _note_disconnect(exchange)
                if playing.exception() is not None:
                    return
                exchange.finished.set()
                ahead = await hung_up
                if not ahead:
                    return
            finally:
                for task in (hung_up, playing):
                    task.cancel()
                await asyncio.gather(hung_up, playing, return_exceptions=True)

    def _actions(self, exchange: Exchange, asked: str) -> Sequence[Action]:
        tries = self._scripts.get(exchange.name)
        if not tries:
            return self._otherwise or [role(), text(*_words(f"echo: {asked}")), ok()]
        return tries[min(len(self.exchanges(exchange.name)), len(tries) - 1)]


async def _play(actions: Sequence[Action], reply: Reply) -> None:
    for action in actions:
        await action(reply)
    await reply.end()


def _note_disconnect(exchange: Exchange) -> None:
    exchange.disconnected_at = time.monotonic()
    exchange.disconnected.set()


def _head(head: bytes) -> tuple[str, str, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ", 2)
    pairs = (line.partition(":") for line in lines if line)
    return method, path, {name.strip().lower(): value.strip() for name, _, value in pairs}


async def _simple(writer: asyncio.StreamWriter, path: str) -> None:
    """The list of models, which some clients and health checks ask for."""
    found = path.endswith(("/models", "/health"))
    body = json.dumps({"object": "list", "data": [{"id": "scripted", "object": "model"}]} if found else {}).encode()
    line = b"HTTP/1.1 200 OK\r\n" if found else b"HTTP/1.1 404 Not Found\r\n"
    writer.write(line + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    await writer.drain()


def _words(answer: str) -> Iterator[str]:
    return (match.group() for match in re.finditer(r"\S+\s*", answer))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8081)
    with ScriptedProvider(parser.parse_args().port) as provider, suppress(KeyboardInterrupt):
        print(f"OPENAI_BASE_URL={provider.base_url}", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
