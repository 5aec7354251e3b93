"""In which order the models of a route are asked: those first that may be asked at all, then by the route's strategy.

What rotates does so for this process alone: many processes add up to the same shares.
"""

from collections import OrderedDict
from dataclasses import dataclass, field

from llm import health
from llm.aliases import Candidates
from llm.health import Health

#: Routes whose turns are remembered, the latest used ones.
_MAX_ROUTES = 1024


@dataclass(slots=True)
class _Turns:
    count: int = 0
    #: Smooth weighted round robin: what each model is owed.
    owed: dict[str, int] = field(default_factory=dict)


_turns: OrderedDict[tuple[str, ...], _Turns] = OrderedDict()


def in_order(candidates: Candidates) -> list[Health]:
    """The models that may be asked now, first choice first; those whose breaker is open are left out."""
    every = [health.of(model) for model in candidates.models]
    usable = [(one, weight) for one, weight in zip(every, candidates.weights, strict=True) if one.breaker.passable]
    models = [one for one, _ in usable]
    if len(models) < 2 or candidates.strategy == "fallback":
        return models
    turns = _turns_of(candidates)
    turns.count += 1
    if candidates.strategy == "weighted":
        return _weighted(turns, usable)
    start = (turns.count - 1) % len(models)
    rotated = models[start:] + models[:start]
    # Sorting is stable: models that are equally busy still take turns.
    return sorted(rotated, key=lambda one: one.busy) if candidates.strategy == "least_busy" else rotated


def _weighted(turns: _Turns, usable: list[tuple[Health, int]]) -> list[Health]:
    """As nginx does: each is owed its weight, the one that is owed most is first and pays the sum."""
    for one, weight in usable:
        turns.owed[one.model.key] = turns.owed.get(one.model.key, 0) + weight
    first = max(usable, key=lambda pair: turns.owed[pair[0].model.key])[0]
    turns.owed[first.model.key] -= sum(weight for _, weight in usable)
    others = sorted((pair for pair in usable if pair[0] is not first), key=lambda pair: -pair[1])
    return [first, *(one for one, _ in others)]


def _turns_of(candidates: Candidates) -> _Turns:
    key = (candidates.name, candidates.strategy, *(model.key for model in candidates.models))
    turns = _turns.setdefault(key, _Turns())
    _turns.move_to_end(key)
    if len(_turns) > _MAX_ROUTES:
        _turns.popitem(last=False)
    return turns
