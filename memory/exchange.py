"""What chat tells memory: what was said in a turn, and that something earlier has changed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from kernel.conf import config as settings
from kernel.text import storable
from llm.registry import memory_stores
from memory.protocol import Store
from memory.truth import REMEMBERED

Definition = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Said:
    """One message of a turn as it ended: the question, or the answer, also one that failed (it has its place too)."""

    order: int
    role: str
    content: str
    status: str = "complete"
    id: object = None


async def remember(session_id: UUID, said: Sequence[Said], *, definition: Definition | None = None) -> None:
    """Write a finished turn through to the stores that its workflow reads from; `definition` None: the default store.

    Call it after the turn's last transaction. Never fails for a store that is down: a reader notices what it missed.
    """
    # LangChain's messages are imported on first use, not at start-up.
    from memory.messages import message  # noqa: PLC0415

    messages = [
        message(each.order, each.role, storable(each.content) if each.status in REMEMBERED else "", each.id)
        for each in said
    ]
    for name in sorted(stores_of(definition)):
        await open_store(name, session_id).aadd_messages(messages)


async def forget(session_id: UUID, *, definition: Definition | None = None) -> None:
    """Drop the copies of a conversation; call it after the commit that deletes or changes an earlier message.

    Raises StoreUnavailable: the caller must try again, because what could not be dropped may still be recalled.
    """
    for name in sorted(stores_of(definition)):
        await open_store(name, session_id).aclear()


def open_store(name: str, session_id: UUID) -> Store:
    """The conversation's messages in the store of that name. Raises Misconfigured for an unknown one."""
    store: Store = memory_stores.get(name)({"session_id": session_id})
    return store


def stores_of(definition: Definition | None) -> set[str]:
    """The stores that a workflow's `memory` steps read from."""
    default = settings().memory.store
    if definition is None:
        return {default}
    return {step.get("store") or default for step in _memory_steps(definition)}


def _memory_steps(within: object) -> Iterator[Mapping[str, Any]]:
    """Every `memory` step, also inside steps that hold others."""
    if isinstance(within, Mapping):
        if within.get("type") == "memory":
            yield within
        else:
            yield from _memory_steps(list(within.values()))
    elif isinstance(within, Sequence) and not isinstance(within, str):
        for each in within:
            yield from _memory_steps(each)
