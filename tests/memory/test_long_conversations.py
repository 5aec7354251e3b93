"""What a turn costs in a conversation of 10 messages and of 10,000: the same statements, and no more rows."""

import random
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import numpy
import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.db.models import F

from accounts.access import caller_of
from chat import branches
from chat.models import ChatHistory, ChatSession
from kernel import database, redis
from kernel.conf import config as settings
from llm.embeddings.embedder import embedder
from llm.state import RunContext
from llm.workflows import WorkflowInput, WorkflowState, compile_workflow
from memory import paths, vectors
from memory.models import BranchPath, MessageVector, Summary
from memory.truth import place_of
from memory.vectors import Asked
from tests.memory.conversations import Conversation
from tests.memory.reading import rows_read, statements

pytestmark = pytest.mark.django_db(transaction=True)

FACT = "My sister Ottilie keeps a parrot called Zanzibar."
QUESTION = "What is the parrot of my sister Ottilie called?"
#: Each kind with what it is asked for, and the messages that it may read at most.
KINDS: dict[str, tuple[dict[str, Any], int]] = {
    "buffer": ({}, settings().memory.max_messages + 1),
    "buffer_window": ({"k": 6}, 6),
    "token_window": ({"options": {"max_tokens": 400}}, 400 // 9),
    "summary": ({"options": {"tail": 4, "every": 2}}, 8),
    "summary_buffer": ({"options": {"max_tokens": 400}}, 400 // 9),
    "recall": ({"options": {"tail": 4}}, 4),
}


@pytest.fixture(autouse=True)
async def _connections_are_closed(redis_url: str) -> AsyncIterator[None]:
    yield
    await redis.close()


#: Vectors of nothing in particular for all that was said, made where they are kept.
EMBED = """
INSERT INTO memory_messagevector (id, created_at, updated_at, workspace_id, session_id, message_id, "order", embedding,
    embedding_model, dimension)
SELECT gen_random_uuid(), now(), now(), workspace_id, session_id, id, "order",
    (SELECT array_agg(random() - 0.5 + 0 * (at + "order")) FROM generate_series(1, %(dimension)s) AS at)::vector,
    %(model)s, %(dimension)s
FROM chat_chathistory WHERE session_id = %(session)s
"""


def embed(talk: Conversation) -> None:
    model = embedder()
    with connection.cursor() as cursor:
        cursor.execute(EMBED, {"session": talk.session_id, "model": model.model, "dimension": model.dimension})


def state_fact(talk: Conversation, order: int, vector: list[float]) -> None:
    ChatHistory.objects.filter(session_id=talk.session_id, order=order).update(content=FACT)
    MessageVector.objects.filter(session_id=talk.session_id, order=order).update(embedding=vector)


def summarise(talk: Conversation, *, behind: int) -> None:
    """A summary of all but the newest messages."""
    through = ChatHistory.objects.get(session_id=talk.session_id, order=talk.orders - behind)
    Summary.objects.create(
        workspace_id=talk.workspace_id,
        session_id=talk.session_id,
        through=through,
        through_order=through.order,
        version=1,
        text="Many numbers.",
    )


def settle() -> None:
    """What autovacuum does from time to time: plans and indexes fit the rows."""
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE chat_chathistory, chat_chatsession, memory_messagevector, memory_summary")


async def long_talk(messages: int, *, fact: int = 3, settled: bool = True) -> Conversation:
    talk = await Conversation.of(messages // 2)
    vector = (await embedder().documents([FACT]))[0]
    await database.run(embed, talk)
    await database.run(state_fact, talk, fact, vector)
    await database.run(lambda: summarise(talk, behind=4))
    if settled:
        await database.run(settle)
    return talk


async def recalled(talk: Conversation, kind: str, store: str = "postgres", **step: Any) -> list[str]:
    place = await database.run(place_of, talk.session_id)
    inputs = WorkflowInput(
        talk.workspace_id,
        None,
        talk.session_id,
        QUESTION,
        before_order=talk.next_order,
        leaf=place.leaf,
        epoch=place.epoch,
    )
    state = WorkflowState.begin(inputs, RunContext.unlogged(talk.workspace_id))
    (compiled,) = compile_workflow([{"type": "memory", "kind": kind, "store": store, **step}]).steps
    async for _ in compiled.run(state):
        pass
    return [message.text for message in state.history]


async def new_epoch(talk: Conversation) -> None:
    sessions = ChatSession.objects.filter(id=talk.session_id)
    await database.run(lambda: sessions.update(memory_epoch=F("memory_epoch") + 1))


async def edit(talk: Conversation, order: int, text: str) -> None:
    """Another question beside the one at that place; what follows it stays on the old branch."""
    old = await database.run(ChatHistory.objects.get, session_id=talk.session_id, order=order)
    talk.head = old.parent_id
    await talk.say(text, "An answer to it.")
    await new_epoch(talk)


@pytest.mark.parametrize("settled", [True, False])
async def test_every_kind_asks_as_often_and_reads_no_more_of_ten_thousand_messages_than_of_ten(
    monkeypatch: pytest.MonkeyPatch, settled: bool
) -> None:
    if not settled:
        # What the planner knows are small sessions; one has grown since.
        for _ in range(30):
            await long_talk(6, settled=False)
        await database.run(settle)
    short, long = await long_talk(10, settled=settled), await long_talk(10_000, settled=settled)
    for branched in (False, True):
        if branched:
            for talk in (short, long):
                await edit(talk, talk.orders - 1, "Something else?")
                await database.run(paths.keep, talk.session_id, talk.workspace_id)
        for store in ("postgres", "redis"):
            # A copy is made by the first that asks, and serves the second.
            asked = [[await reads(talk, store, monkeypatch) for _ in range(2)] for talk in (short, long)]
            assert asked[0] == asked[1]


async def reads(talk: Conversation, store: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many statements each kind needs; none of them reads more than it may."""
    counts = {}
    for kind, (step, most) in KINDS.items():
        with statements(monkeypatch) as seen:
            assert await recalled(talk, kind, store, **step)
        counts[kind] = len(seen)
        read = await database.run(rows_read, seen)
        # The messages, those behind the summary, and one for each that is found; deleted ones are looked at, too.
        assert read.get("chat_chathistory", 0) <= most + 2 * 10, (kind, read)
        assert read.get("memory_messagevector", 0) <= 200, (kind, read)
    return counts


async def test_a_message_is_recalled_from_among_ten_thousand_also_after_the_past_has_changed() -> None:
    talk = await long_talk(10_000, fact=5001)
    assert FACT in str(await recalled(talk, "recall", options={"tail": 4}))
    await database.run(paths.keep, talk.session_id, talk.workspace_id)
    await edit(talk, 9001, "Something else?")  # before a worker has looked at the branch
    assert FACT in str(await recalled(talk, "recall", options={"tail": 4}))
    await edit(talk, 4001, "Something else again?")
    assert FACT not in str(await recalled(talk, "recall", options={"tail": 4}))
    talk.head = (await database.run(ChatHistory.objects.get, session_id=talk.session_id, order=10_000)).id
    await talk.say("And on the first branch?", "Yes.")
    await new_epoch(talk)
    assert FACT in str(await recalled(talk, "recall", options={"tail": 4}))


async def test_of_a_branch_that_no_worker_has_seen_the_newest_messages_are_searched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(paths, "WALKED", 10)
    talk = await long_talk(40, fact=35)
    await edit(talk, 39, "Something else?")
    assert FACT in str(await recalled(talk, "recall", options={"tail": 2}))
    await edit(talk, 41, "Something else again?")
    await database.run(state_fact, talk, 5, (await embedder().documents([FACT]))[0])
    await database.run(lambda: ChatHistory.objects.filter(order=35).update(content="", is_deleted=True))
    assert FACT not in str(await recalled(talk, "recall", options={"tail": 2}))
    await database.run(paths.keep, talk.session_id, talk.workspace_id)
    assert FACT in str(await recalled(talk, "recall", options={"tail": 2}))


async def test_a_branch_is_known_as_far_as_it_goes_however_it_was_changed() -> None:
    talk, draw = await Conversation.of(5), random.Random(4)
    for number in range(40):
        rows = await database.run(lambda: list(ChatHistory.objects.filter(session_id=talk.session_id)))
        talk.head = draw.choice(rows).id
        await talk.say(f"q{number}", f"a{number}")
        await new_epoch(talk)
        if draw.random() < 0.5:
            await database.run(paths.keep, talk.session_id, talk.workspace_id)
            kept = (await database.run(BranchPath.objects.get, session_id=talk.session_id)).places
            known = {order for order in range(1, talk.orders + 1) if any(order in places for places in kept)}
            assert known == await database.run(walked, talk.session_id, talk.head)


def walked(session_id: UUID, leaf: UUID | None) -> set[int]:
    found = set()
    while leaf is not None:
        row = ChatHistory.objects.get(session_id=session_id, id=leaf)
        found.add(row.order)
        leaf = row.parent_id
    return found


@pytest.fixture
def clustered() -> tuple[Any, Any]:
    """Four thousand vectors of 100 themes, as many dimensions as ours have, and forty questions about them."""
    draw = numpy.random.default_rng(11)
    spread = (1 + numpy.arange(embedder().dimension)) ** -0.3
    themes = draw.normal(size=(100, embedder().dimension)) * spread
    noise = lambda count: draw.normal(size=(count, embedder().dimension)) * spread  # noqa: E731
    said = themes[draw.integers(0, 100, 4_000)] + 0.7 * noise(4_000)
    asked = themes[draw.integers(0, 100, 40)] + 0.7 * noise(40)
    return said, asked


async def test_what_is_nearest_is_found_as_by_an_exact_search(clustered: tuple[Any, Any]) -> None:
    said, asked = (rows / numpy.linalg.norm(rows, axis=1, keepdims=True) for rows in clustered)
    talk = await Conversation.of(2_000)
    await database.run(_embed_all, talk, said)
    exact = numpy.argsort(-(asked @ said.T), axis=1)[:, :10] + 1
    found = [[near.order for near in await database.run(vectors.near, question(talk, each))] for each in asked]
    shared = [len(set(one) & set(other)) / 10 for one, other in zip(exact.tolist(), found, strict=True)]
    assert numpy.mean(shared) >= 0.95


def _embed_all(talk: Conversation, said: Any) -> None:
    ids = ChatHistory.objects.filter(session_id=talk.session_id).order_by("order").values_list("id", "order")
    rows = [
        MessageVector(
            workspace_id=talk.workspace_id,
            session_id=talk.session_id,
            message_id=each,
            order=order,
            embedding=vector.tolist(),
            embedding_model=embedder().model,
            dimension=embedder().dimension,
        )
        for (each, order), vector in zip(ids, said, strict=True)
    ]
    MessageVector.objects.bulk_create(rows, batch_size=1000)


def question(talk: Conversation, vector: Any, **other: Any) -> Asked:
    values: dict[str, Any] = {
        "session_id": talk.session_id,
        "leaf": talk.head,
        "epoch": 0,
        "below": talk.next_order,
        "vector": vector.tolist(),
        "model": embedder().model,
        "limit": 10,
        "min_score": -1.0,
    }
    return Asked(**values | other)


async def test_no_other_session_and_no_other_model_is_searched_and_no_more_than_the_newest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    draw = numpy.random.default_rng(2)
    mine, other = await Conversation.of(50), await Conversation.of(50)
    for talk in (mine, other):
        await database.run(_embed_all, talk, draw.normal(size=(100, embedder().dimension)))
    asked = question(mine, draw.normal(size=embedder().dimension), limit=50)
    orders = {near.order for near in await database.run(vectors.near, asked)}
    assert len(orders) == 50
    rows = MessageVector.objects.filter(session_id=mine.session_id)
    old = rows.filter(order__lte=60)
    await database.run(lambda: old.update(embedding_model="another", dimension=3, embedding=[1.0, 2.0, 3.0]))
    assert {near.order for near in await database.run(vectors.near, asked)} == set(range(61, 101))
    monkeypatch.setattr(vectors, "NEWEST", 20)
    assert {near.order for near in await database.run(vectors.near, asked)} == set(range(81, 101))


async def test_a_deleted_message_is_not_recalled_from_a_branch_that_is_known() -> None:
    talk = await long_talk(40, fact=11)
    user = await database.run(get_user_model().objects.get, chat_sessions__id=talk.session_id)
    await edit(talk, 31, "Something else?")
    await database.run(paths.keep, talk.session_id, talk.workspace_id)
    assert FACT in str(await recalled(talk, "recall", options={"tail": 4}))
    secret = await database.run(ChatHistory.objects.get, session_id=talk.session_id, order=11)
    await database.run(branches.delete, caller_of(user), talk.session_id, secret.id)
    assert FACT not in str(await recalled(talk, "recall", options={"tail": 4}))
