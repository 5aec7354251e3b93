"""The `memory` step of a workflow: what was said before the question, as `history`."""

from collections.abc import AsyncGenerator
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from kernel.conf import config as settings
from llm.events import Event
from llm.registry import Registry, memories, memory_stores
from llm.state import WorkflowState
from llm.steps.base import Step
from memory.exchange import open_store
from memory.options import BY_KIND, read
from memory.protocol import Memory
from memory.recall import Occasion


class MemoryStep(Step):
    """`kind` and `store` by name, MEMORY's without them; `k` or `window`: how many messages a window keeps."""

    type: Literal["memory"] = "memory"
    kind: str | None = Field(default=None, validate_default=True)
    store: str | None = Field(default=None, validate_default=True)
    k: int | None = Field(default=None, ge=1)
    window: int | None = Field(default=None, ge=1)
    #: What a kind takes beside that; see memory.options for the built-in ones.
    options: dict[str, Any] = Field(default_factory=dict, validate_default=True)

    @field_validator("kind")
    @classmethod
    def _known_kind(cls, name: str | None) -> str | None:
        _check(name or settings().memory.kind, memories)
        return name

    @field_validator("store")
    @classmethod
    def _known_store(cls, name: str | None) -> str | None:
        _check(name or settings().memory.store, memory_stores)
        return name

    @field_validator("window")
    @classmethod
    def _one_size(cls, window: int | None, info: ValidationInfo) -> int | None:
        if window and info.data.get("k"):
            raise ValueError("the same as 'k'; give one of them")
        return window

    @field_validator("options")
    @classmethod
    def _known_options(cls, options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        known = BY_KIND.get(info.data.get("kind") or settings().memory.kind)
        if known is not None:
            given = {name: value for name in ("k", "window") if (value := info.data.get(name)) is not None}
            read(known, {**given, **options})
        return options

    async def run(self, state: WorkflowState) -> AsyncGenerator[Event, None]:
        inputs = state.inputs
        if inputs.session_id is not None:
            name = self.store or settings().memory.store
            store = open_store(name, inputs.session_id, leaf=inputs.leaf, epoch=inputs.epoch, as_of=inputs.as_of)
            memory = self._memory()
            # Kinds that read rows of their own are told whose.
            if hasattr(memory, "at"):
                memory = memory.at(
                    Occasion(
                        workspace_id=inputs.workspace_id,
                        session_id=inputs.session_id,
                        leaf=inputs.leaf,
                        epoch=inputs.epoch,
                        before_order=inputs.before_order,
                        configuration=state.run.configuration,
                    )
                )
            state.history = await memory.recall(store, question=state.question, before_order=inputs.before_order)
        return
        yield  # makes this an async generator; the step has nothing to show

    def _memory(self) -> Memory:
        given = {name: value for name in ("k", "window") if (value := getattr(self, name)) is not None}
        made: Memory = memories.get(self.kind or settings().memory.kind)({**given, **self.options})
        return made


def _check(name: str, known: Registry[Any]) -> None:
    if name not in known.names():
        raise ValueError(f"there is no {name!r}; known: {', '.join(known.names())}")
