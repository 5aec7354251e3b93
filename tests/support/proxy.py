"""A TCP proxy between a client and a server, which cuts, stalls or refuses when a test says so.

    async with Proxy(server.port) as proxy:
        …  # a client talks to proxy.url
        proxy.cut()

Sync tests use it as `with running(Proxy(server.port)) as proxy`: it then lives in a thread of its own.
"""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Self


class Proxy:
    """`target` may be changed at any time; new connections go there."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.refusing = False
        self.accepted = 0
        self.port = 0
        #: Cut a connection instead of letting this through from the server; empty: let everything through.
        self.cut_before = b""
        self.cuts = 0
        #: What the clients have sent, as it came.
        self.sent = bytearray()
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """End every connection at once, as a lost network does."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._abort_all)

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self._abort_all()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _abort_all(self) -> None:
        for writer in self._open:
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._open.add(writer)
        self.accepted += 1
        try:
            if not self.refusing:
                with suppress(OSError):
                    await self._join(reader, writer)
        finally:
            writer.transport.abort()
            self._open.discard(writer)
            self._tasks.discard(task)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        self._open.add(far_writer)
        ways = [
            asyncio.create_task(self._carry(reader, far_writer, upward=True)),
            asyncio.create_task(self._carry(far_reader, writer, upward=False)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            far_writer.transport.abort()
            self._open.discard(far_writer)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, upward: bool) -> None:
        while data := await reader.read(65_536):
            if upward:
                self.sent += data
            elif self.cut_before and self.cut_before in data:
                self.cuts += 1
                return
            writer.write(data)
            await writer.drain()


@contextmanager
def running(proxy: Proxy) -> Iterator[Proxy]:
    """The proxy in a thread with an event loop of its own."""
    ready, over = threading.Event(), threading.Event()

    async def serve() -> None:
        async with proxy:
            ready.set()
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="proxy", daemon=True)
    thread.start()
    assert ready.wait(5), "the proxy did not start"
    try:
        yield proxy
    finally:
        over.set()
        thread.join(5)
