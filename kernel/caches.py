"""The caches of this process, each with a bound and with figures of how often it helped."""

from collections.abc import Hashable, MutableMapping
from dataclasses import dataclass
from threading import Lock
from typing import Generic, Protocol, TypeVar

from cachetools import LRUCache

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(slots=True)
class Figures:
    """Since the process began."""

    hits: int = 0
    misses: int = 0
    #: Values that are held; None: they are rows of the database, which all processes share.
    size: int | None = None


class _Counted(Protocol):
    def figures(self) -> Figures: ...


class Tally:
    """The figures of a cache whose values lie elsewhere. Safe to use from several threads."""

    def __init__(self, name: str) -> None:
        self._lock = Lock()
        self._hits = self._misses = 0
        _caches[name] = self

    def count(self, *, hit: bool) -> None:
        with self._lock:
            self._hits += hit
            self._misses += not hit

    def figures(self) -> Figures:
        with self._lock:
            return Figures(self._hits, self._misses)


class Cache(Generic[K, V]):
    """The last used `size` values. Safe to use from several threads; `None` is no value."""

    def __init__(self, name: str, size: int) -> None:
        self._values: MutableMapping[K, V] = LRUCache(size)
        self._lock = Lock()
        self._figures = Figures()
        _caches[name] = self

    def get(self, key: K) -> V | None:
        with self._lock:
            value = self._values.get(key)
            if value is None:
                self._figures.misses += 1
            else:
                self._figures.hits += 1
            return value

    def put(self, key: K, value: V) -> V:
        with self._lock:
            self._values[key] = value
        return value

    def drop(self, key: K) -> None:
        with self._lock:
            self._values.pop(key, None)

    def clear(self) -> None:
        with self._lock:
            self._values.clear()

    def figures(self) -> Figures:
        with self._lock:
            return Figures(self._figures.hits, self._figures.misses, len(self._values))


_caches: dict[str, _Counted] = {}


def figures() -> dict[str, Figures]:
    """Each cache's figures, by its name."""
    return {name: cache.figures() for name, cache in sorted(_caches.items())}
