"""The conditions of a `branch`: a closed grammar over values, with a regex engine that can't run away.

{"field": "question", "op": "matches", "value": "(?i)\\\\brefund"}
{"and": [{"field": "variables.tier", "op": "equals", "value": "gold"}, {"not": {"field": "x", "op": "exists"}}]}
"""

from collections.abc import Callable
from functools import cached_property
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from llm import patterns, values
from llm.state import WorkflowState
from llm.values import MISSING, ValuePath

Op: TypeAlias = Literal[
    "equals", "not_equals", "contains", "in", "gt", "gte", "lt", "lte", "matches", "exists"
]  # fmt: skip


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Comparison(_Part):
    """A value against a constant. Values that can't be compared that way don't match; nor does a missing one."""

    field: ValuePath
    op: Op
    value: Any = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.op == "matches":
            _ = self._pattern
        if self.op == "in" and not isinstance(self.value, list | str):
            raise ValueError("'in' needs a list or a text as 'value'")
        if self.op in _ORDER and not _orderable(self.value):
            raise ValueError(f"{self.op!r} needs a number or a text as 'value'")
        if self.op == "exists" and self.value not in (None, True, False):
            raise ValueError("'exists' takes true, false or nothing as 'value'")
        return self

    @cached_property
    def _pattern(self) -> Any:
        return patterns.compile_pattern(self.value)

    @property
    def searches(self) -> bool:
        """It may take long, so that it is done in a thread."""
        return self.op == "matches"

    def holds(self, state: WorkflowState) -> bool:
        found = values.find(state, self.field)
        if self.op == "exists":
            return (found is not MISSING) is (self.value is not False)
        if found is MISSING:
            return self.op == "not_equals"
        if self.op == "matches":
            return isinstance(found, str) and patterns.search(self._pattern, found) is not None
        if self.op in _ORDER:
            return _comparable(found, self.value) and _ORDER[self.op](found, self.value)
        return _TESTS[self.op](found, self.value)


class AllOf(_Part):
    all: list["Condition"] = Field(alias="and", min_length=1, max_length=20)

    @property
    def searches(self) -> bool:
        return any(part.searches for part in self.all)

    def holds(self, state: WorkflowState) -> bool:
        return all(part.holds(state) for part in self.all)


class AnyOf(_Part):
    any: list["Condition"] = Field(alias="or", min_length=1, max_length=20)

    @property
    def searches(self) -> bool:
        return any(part.searches for part in self.any)

    def holds(self, state: WorkflowState) -> bool:
        return any(part.holds(state) for part in self.any)


class Not(_Part):
    inner: "Condition" = Field(alias="not")

    @property
    def searches(self) -> bool:
        return self.inner.searches

    def holds(self, state: WorkflowState) -> bool:
        return not self.inner.holds(state)


def _kind(condition: Any) -> str:
    names = condition if isinstance(condition, dict) else ()
    return next((f"?{name}" for name in ("and", "or", "not") if name in names), "?field")


#: The tags begin with "?", so that llm.grammar can tell them from keys in the path to a fault.
Condition: TypeAlias = Annotated[
    Annotated[Comparison, Tag("?field")]
    | Annotated[AllOf, Tag("?and")]
    | Annotated[AnyOf, Tag("?or")]
    | Annotated[Not, Tag("?not")],
    Discriminator(_kind),
]
for _model in (AllOf, AnyOf, Not):
    _model.model_rebuild()


def _equal(one: Any, other: Any) -> bool:
    """JSON's equality: `true` is not 1."""
    return isinstance(one, bool) is isinstance(other, bool) and bool(one == other)


def _within(item: Any, whole: Any) -> bool:
    if isinstance(whole, str):
        return isinstance(item, str) and item in whole
    if isinstance(whole, dict):
        return isinstance(item, str) and item in whole
    return isinstance(whole, list) and any(_equal(item, one) for one in whole)


def _orderable(value: Any) -> bool:
    return isinstance(value, int | float | str) and not isinstance(value, bool)


def _comparable(one: Any, other: Any) -> bool:
    return _orderable(one) and _orderable(other) and isinstance(one, str) is isinstance(other, str)


_TESTS: dict[str, Callable[[Any, Any], bool]] = {
    "equals": _equal,
    "not_equals": lambda found, value: not _equal(found, value),
    "contains": lambda found, value: _within(value, found),
    "in": _within,
}
_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "gt": lambda found, value: bool(found > value),
    "gte": lambda found, value: bool(found >= value),
    "lt": lambda found, value: bool(found < value),
    "lte": lambda found, value: bool(found <= value),
}
