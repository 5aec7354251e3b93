"""What this process knows of each model's health: its breaker, its budget of retries, its places.

It belongs to an event loop, as the models do (llm.aliases). Other processes find out by themselves.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from llm.aliases import MAX_BUILT, BuiltModel
from llm.breaker import Breaker
from llm.queueing import Places
from llm.retries import RetryBudget


@dataclass(eq=False, slots=True)
class Health:
    """One model's. Two builds of an alias that differ in sampling options share the places, not the breaker."""

    model: BuiltModel
    places: Places
    breaker: Breaker
    retries: RetryBudget = field(default_factory=RetryBudget)

    @property
    def busy(self) -> int:
        """Calls that run or wait."""
        return self.places.running + self.places.waiting

    @property
    def resting(self) -> bool:
        """Nothing would be lost by forgetting it, but for a count of failures."""
        return not self.busy and self.breaker.state == "closed"

    def figures(self) -> dict[str, Any]:
        """For people: plain JSON, no secret. `opens_in`: seconds until the model is tried again."""
        return {
            "alias": self.model.alias,
            "provider": self.model.bounds.provider,
            "model": self.model.bounds.model,
            "state": self.breaker.state,
            "opens_in": round(self.breaker.wait, 1),
            "failures": self.breaker.failures,
            "last_error": self.breaker.last_error,
            "running": self.places.running,
            "waiting": self.places.waiting,
            "places": self.places.limit,
            "retry_tokens": round(self.retries.tokens, 1),
        }


class _Known:
    def __init__(self) -> None:
        self.by_key: dict[str, Health] = {}
        self.places: dict[str, Places] = {}


_known: WeakKeyDictionary[asyncio.AbstractEventLoop, _Known] = WeakKeyDictionary()


def of(model: BuiltModel) -> Health:
    """The model's health, kept for this event loop."""
    known = _known.setdefault(asyncio.get_running_loop(), _Known())
    health = known.by_key.get(model.key)
    if health is None:
        if len(known.by_key) >= 2 * MAX_BUILT:
            _forget_resting(known)
        places = known.places.setdefault(model.place, Places(model.bounds.max_concurrent))
        health = known.by_key[model.key] = Health(model, places, Breaker(model.alias))
    # The alias as it is configured now says how many.
    health.places.limit = model.bounds.max_concurrent
    return health


def figures(models: Sequence[BuiltModel] | None = None) -> list[dict[str, Any]]:
    """What this process has seen of these models; None: of all that were called."""
    if models is not None:
        return [of(model).figures() for model in models]
    known = _known.get(asyncio.get_running_loop())
    return [] if known is None else [health.figures() for health in known.by_key.values()]


def forget() -> None:
    """Begin anew, as tests do."""
    _known.clear()


def _forget_resting(known: _Known) -> None:
    """Models that were configured differently, or whose workspaces are idle."""
    known.by_key = {key: health for key, health in known.by_key.items() if not health.resting}
    used = {id(health.places) for health in known.by_key.values()}
    known.places = {place: places for place, places in known.places.items() if id(places) in used}
