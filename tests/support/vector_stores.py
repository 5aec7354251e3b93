"""Every vector store for tests: two of Chroma's shapes, Pinecone's stand-in, and one that a team might write."""

import asyncio
import math
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID

import httpx

from kernel.errors import StoreUnavailable
from tests.support.scripted_pinecone import API_KEY, ScriptedPinecone
from vectorstore.backends import fitting, has_length
from vectorstore.filters import Filter
from vectorstore.values import Entry, Scored, SetInfo, SetStats

DIMENSION = 64
NAMES = ("pgvector", "chroma", "chroma-server", "pinecone", "custom")


class InMemory:
    """As a team would write one. Its vectors live as long as the class."""

    beside_rows: ClassVar[bool] = False
    sets: ClassVar[dict[UUID, dict[UUID, Entry]]] = defaultdict(dict)
    away: ClassVar[bool] = False

    async def add(self, vectors: SetInfo, entries: Sequence[Entry]) -> None:
        await self.health()
        fitting(vectors, entries)
        self.sets[vectors.id].update({each.chunk_id: each for each in entries})

    async def remove(self, vectors: SetInfo, chunk_ids: Sequence[UUID]) -> None:
        await self.health()
        for each in chunk_ids:
            self.sets[vectors.id].pop(each, None)

    async def search(
        self, vectors: SetInfo, vector: Sequence[float], *, k: int, where: Filter | None = None
    ) -> list[Scored]:
        await self.health()
        found = [
            Scored(each.chunk_id, _cosine(vector, each.vector))
            for each in self.sets[vectors.id].values()
            if has_length(vector) and has_length(each.vector)
        ]
        return sorted(found, key=lambda each: -each.score)[:k]

    async def drop(self, vectors: SetInfo) -> None:
        await self.health()
        self.sets.pop(vectors.id, None)

    async def stats(self, vectors: SetInfo) -> SetStats:
        await self.health()
        return SetStats(vectors=len(self.sets[vectors.id]))

    async def health(self) -> None:
        await asyncio.sleep(0)
        if InMemory.away:
            raise StoreUnavailable("The store is away.")


def create(config: dict[str, Any]) -> InMemory:
    return InMemory()


def _cosine(a: Sequence[float], b: Sequence[float]) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


class ChromaServer:
    """Chroma's own server, with its data in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        program = Path(sys.executable).with_name("chroma")
        arguments = ["run", "--path", str(self._folder), "--host", "127.0.0.1", "--port", str(self.port)]
        self._process = subprocess.Popen(
            [program, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                httpx.get(f"http://127.0.0.1:{self.port}/api/v2/heartbeat", timeout=1)
            except httpx.HTTPError:
                time.sleep(0.05)
            else:
                return
        raise TimeoutError("chroma run did not answer")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None


class Stores:
    """What the stores of a test session are; started when first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server: ChromaServer | None = None
        self._pinecone: ScriptedPinecone | None = None

    @property
    def server(self) -> ChromaServer:
        if self._server is None:
            self._server = ChromaServer(self._folder / "server")
            self._server.start()
        return self._server

    @property
    def pinecone(self) -> ScriptedPinecone:
        if self._pinecone is None:
            self._pinecone = ScriptedPinecone(DIMENSION)
            self._pinecone.__enter__()
        return self._pinecone

    def close(self) -> None:
        if self._server is not None:
            self._server.stop()
        if self._pinecone is not None:
            self._pinecone.__exit__(None, None, None)

    def options(self, name: str) -> tuple[str, dict[str, Any]]:
        """The backend's name and its options."""
        if name == "chroma":
            return name, {"path": str(self._folder / "chroma")}
        if name == "chroma-server":
            return "chroma", {"host": "127.0.0.1", "port": self.server.port}
        if name == "pinecone":
            return name, {"host": self.pinecone.host, "timeout": 5.0}
        return name, {}


@contextmanager
def started(folder: Path) -> Iterator[Stores]:
    stores = Stores(folder)
    try:
        yield stores
    finally:
        stores.close()


def settings_for(base: dict[str, Any], backend: str, options: dict[str, Any]) -> dict[str, Any]:
    store = base.get("VECTOR_STORE", {})
    options = store.get("OPTIONS", {}) | {backend: options}
    return base | {"VECTOR_STORE": store | {"BACKEND": backend, "OPTIONS": options}}


def with_key(monkeypatch: Any) -> None:
    monkeypatch.setenv("PINECONE_API_KEY", API_KEY)
