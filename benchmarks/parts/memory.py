"""What recalling a conversation costs a turn, for each kind of memory and each store, and that it stays so as it grows.

Kinds that recall more of a longer conversation, up to their bound (`buffer` 500 messages), are held against a thousand
messages, of which they recall as many; the others against ten as well.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from itertools import count
from statistics import median
from time import perf_counter
from typing import Any
from uuid import UUID

import uvloop

from benchmarks import large, machine
from benchmarks.report import Aim, Measure, progress, rounds
from benchmarks.stage import Stage

_SIZES = (10_000, 1000, 10)
_STORES = ("postgres", "redis", "inmemory")
_KINDS = ("buffer", "buffer_window", "token_window", "summary", "summary_buffer", "recall")
_GROWING = ("buffer", "token_window", "summary_buffer")
#: Recalls whose median is a round's value.
_TURNS = 20
#: Messages after a summary: as many as wait for the next one.
_AFTER = 12
_numbers = count(1)


@dataclass(frozen=True)
class Conversation:
    session_id: UUID
    workspace_id: UUID
    leaf: UUID
    #: Grows with each change of the past; from 1 on the branch has to be told from others.
    epoch: int
    messages: int


def run(stage: Stage, *, quick: bool) -> list[Measure]:
    conversations = [_conversation(stage, size) for size in _SIZES]
    # Its jobs have nothing to say here.
    logging.getLogger("memory").setLevel(logging.WARNING)
    for each in conversations:
        uvloop.run(_embed(each))
    large.vacuum(stage, "chat_chathistory", "chat_chatsession", "memory_messagevector", "memory_summary")
    with machine.on_the_servers_core():
        return uvloop.run(_measure(conversations, repeats=1 if quick else 4))


async def _measure(straight: list[Conversation], *, repeats: int) -> list[Measure]:
    edited = [replace(each, epoch=1) for each in straight]
    ways = {f"memory, {kind} from {store}": (kind, store, straight) for kind in _KINDS for store in _STORES}
    ways |= {f"memory, recall from {store}, of an edited session": ("recall", store, edited) for store in _STORES}
    measures = {
        what: Measure(f"{what}: a recall, median of {_TURNS}", "ms", aims=_aims(kind))
        for what, (kind, _, _) in ways.items()
    }
    for number in rounds(repeats, seconds=60):
        for what, (kind, store, sizes) in ways.items():
            took = {each.messages: await _time(_recall(kind, store, each)) for each in sizes}
            for messages, milliseconds in took.items():
                if number:  # the first round only warms up
                    measures[what].add(_named(messages), milliseconds)
            if number:
                shown = ", ".join(f"{_named(messages)} {value:.2f} ms" for messages, value in took.items())
                progress(f"{what} {number}: {shown}")
    return list(measures.values())


def _aims(kind: str) -> dict[str, Aim]:
    return {_named(messages): Aim(1.5) for messages in (_SIZES[1:2] if kind in _GROWING else _SIZES[1:])}


def _named(messages: int) -> str:
    return f"{messages:,} messages"


async def _time(turn: Callable[[], Awaitable[None]]) -> float:
    """Milliseconds of a turn's recall."""
    took = []
    for _ in range(_TURNS):
        begun = perf_counter()
        await turn()
        took.append(perf_counter() - begun)
    return median(took) * 1000


def _recall(kind: str, store: str, of: Conversation) -> Callable[[], Awaitable[None]]:
    """As the `memory` step of a workflow does it."""
    # The project's own: after Django's set-up.
    from llm.registry import memories
    from memory.exchange import open_store
    from memory.recall import Occasion

    occasion = Occasion(
        workspace_id=of.workspace_id,
        session_id=of.session_id,
        leaf=of.leaf,
        epoch=of.epoch,
        before_order=of.messages + 1,
    )
    memory = memories.get(kind)({})
    memory = memory.at(occasion) if hasattr(memory, "at") else memory

    async def turn() -> None:
        # Another question each time: none is found among those that were embedded before.
        question = f"What was said in message {next(_numbers)}?"
        found = await memory.recall(
            open_store(store, of.session_id, leaf=of.leaf, epoch=of.epoch),
            question=question,
            before_order=of.messages + 1,
        )
        if not found:
            raise RuntimeError(f"Nothing is remembered of {of.messages} messages by {kind} from {store}.")

    return turn


def _conversation(stage: Stage, messages: int) -> Conversation:
    """A session with its history and a summary of all but the newest messages."""
    # The project's own: after Django's set-up.
    from chat.models import ChatHistory, ChatSession
    from memory.models import Summary
    from memory.options import SummaryOptions

    (session_id,) = stage.new_sessions(1, messages=messages)
    session = ChatSession.objects.get(id=session_id)
    if messages > _AFTER:
        through = ChatHistory.objects.get(session=session, order=messages - _AFTER)
        Summary.objects.create(
            workspace_id=session.workspace_id,
            session=session,
            through=through,
            through_order=through.order,
            version=1,
            text="What was said before, in a few sentences that a model has written. " * 8,
            model="fake",
            prompt_hash=SummaryOptions().prompt_hash,
        )
    return Conversation(session_id, session.workspace_id, session.head_id, 0, messages)


async def _embed(of: Conversation) -> None:
    """The vectors of its messages, made as a worker makes them."""
    # The project's own: after Django's set-up.
    from kernel import database
    from memory import jobs, keeping

    def want() -> Any:
        jobs.want(of.session_id, of.workspace_id, jobs.Needs(vectors=True))

    await database.run(want)
    begun = perf_counter()
    await keeping.work(of.session_id)
    progress(f"memory: the vectors of {of.messages} messages took {perf_counter() - begun:.1f} s")
