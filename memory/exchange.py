"""What chat tells memory: what was said in a turn, and that the past has changed."""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from kernel.conf import config as settings
from kernel.text import storable
from llm.registry import memory_stores
from memory.protocol import Store
from memory.truth import REMEMBERED, TRUSTED

logger = logging.getLogger(__name__)

Definition = Sequence[Mapping[str, Any]]
Kind = Literal["delete", "edit", "regenerate", "branch"]


@dataclass(frozen=True, kw_only=True)
class Said:
    """One message of a turn as it ended: the question, or the answer, also one that failed (it has its place too)."""

    order: int
    role: str
    content: str
    id: UUID
    #: The message that it follows.
    parent: UUID | None
    status: str = "complete"


@dataclass(frozen=True, kw_only=True)
class Change:
    """A change of a session's past. `epoch` is the session's from now on.

    `delete`: the messages say nothing any more. `edit`, `regenerate`: a new message was put beside them. `branch`: the
    conversation goes on after them, not after its newest message. All but `delete` leave every message as it is; which
    of them are remembered is read off the branch (memory.truth).
    """

    session_id: UUID
    kind: Kind
    message_ids: tuple[UUID, ...]
    epoch: int


#: Who keeps something that is derived from messages. Called inside the transaction of the change: database work alone,
#: and what is raised undoes the change.
on_change: list[Callable[[Change], None]] = []


def changed(change: Change) -> None:
    """The past has changed; called inside the transaction that changes it. Database work."""
    for listener in on_change:
        listener(change)


async def remember(
    session_id: UUID, said: Sequence[Said], *, definition: Definition | None = None, epoch: int | None = None
) -> None:
    """Write a finished turn through to the stores that its workflow reads from; `definition` None: the default store.

    `epoch`: the one that the turn was recalled with. Call it after the turn's last transaction. Never fails for a store
    that is down: a reader notices what it missed.
    """
    # LangChain's messages are imported on first use, not at start-up.
    from memory.messages import message  # noqa: PLC0415

    messages = [
        message(
            each.order,
            each.role,
            storable(each.content) if each.status in REMEMBERED else "",
            each.id,
            each.parent,
        )
        for each in said
    ]
    for name in sorted(stores_of(definition)):
        await open_store(name, session_id, epoch=epoch).aadd_messages(messages)


async def forget(session_id: UUID, *, epoch: int | None = None) -> None:
    """Drop every store's copy of a conversation as it was in that epoch; call it after the commit of a change.

    Once it returns, no question is told anything by such a copy, however early it was sent. Where a store is away, that
    takes a second more: by then nobody reads what it kept in that epoch, and copies expire.
    """
    everywhere = True
    for name in memory_stores.names():
        try:
            await open_store(name, session_id, epoch=epoch).aclear()
        except Exception as error:  # noqa: BLE001  a store that fails, of whosever, keeps no other's copy in place
            logger.warning("action=forget_later store=%s session=%s error=%s", name, session_id, type(error).__name__)
            everywhere = False
    if not everywhere:
        await asyncio.sleep(1.1 * TRUSTED)


def open_store(
    name: str,
    session_id: UUID,
    *,
    leaf: UUID | None = None,
    epoch: int | None = None,
    as_of: float | None = None,
) -> Store:
    """The conversation's messages in the store of that name, on the branch that ends with the message `leaf`.

    With an `epoch` (the session's `memory_epoch`, `as_of` then or now) and no `leaf`, nothing was said before. Without
    an `epoch` the session's active branch is looked up whenever the store is read. Raises Misconfigured for an unknown
    store.
    """
    config: dict[str, Any] = {"session_id": session_id}
    if epoch is not None:
        config |= {"leaf": leaf, "epoch": epoch, "as_of": as_of}
    store: Store = memory_stores.get(name)(config)
    return store


def stores_of(definition: Definition | None) -> set[str]:
    """The stores that a workflow's `memory` steps read from."""
    return {step.get("store") or settings().memory.store for step in memory_steps(definition)}


def memory_steps(within: object) -> Iterator[Mapping[str, Any]]:
    """Every `memory` step of a definition, also inside steps that hold others; of no definition the default one."""
    yield from [{"type": "memory"}] if within is None else steps_of("memory", within)


def steps_of(kind: str, within: object) -> Iterator[Mapping[str, Any]]:
    """Every step of that type in a definition, also inside steps that hold others."""
    if isinstance(within, Mapping):
        if within.get("type") == kind:
            yield within
        else:
            yield from steps_of(kind, list(within.values()))
    elif isinstance(within, Sequence) and not isinstance(within, str):
        for each in within:
            yield from steps_of(kind, each)
