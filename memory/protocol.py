"""The two contracts of memory: a *store* holds a conversation's messages, a *memory* decides what of them is recalled.

LangChain's method names, none of its memory classes: those are deprecated, the message types are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage


class Store(Protocol):
    """One branch of a conversation. Made by a factory `create(config)` with `config["session_id"]`.

    `config["leaf"]` (the id of the branch's last message; None: nothing was said) and `config["epoch"]` (it advances
    with every change of the past: a copy made in another epoch may hold what is deleted) are there together, or not at
    all: then it is the session's active branch (memory.truth.place_of). `config["as_of"]`: see memory.truth.Place.
    """

    async def aget_messages(self, *, limit: int, before_order: int | None = None) -> list[BaseMessage]:
        """The last `limit` messages of the branch before that place, oldest first."""

    async def aadd_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Write through what was just said (see memory.messages for the place that each message carries)."""

    async def aclear(self) -> None:
        """Drop the store's own copy. What the conversation itself holds is chat's to change."""


class Memory(Protocol):
    """A kind of memory. Made by a factory `create(config)` with the options of the workflow's step."""

    async def recall(self, store: Store, *, question: str, before_order: int) -> list[BaseMessage]:
        """What the model gets to know of the conversation before `question`."""


class StoreFactory(Protocol):
    def __call__(self, config: dict[str, Any], /) -> Store: ...
