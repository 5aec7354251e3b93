"""Any conversation, however it was changed, is recalled as a tree in this file has it: from the rows and every copy."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import pytest

from accounts.access import Caller, caller_of
from chat import branches, turns
from chat.models import ChatHistory, ChatSession, MessageStatus, Run
from chat.turns import Accepted, Turn
from kernel import database, redis
from memory import leases
from memory.exchange import Said, forget, open_store, remember
from memory.stores import inmemory
from tests.memory.conversations import Conversation

pytestmark = pytest.mark.django_db(transaction=True)

STORES = ("postgres", "redis", "inmemory")
#: What a workflow reads through two of them writes to both.
DEFINITION = [{"type": "memory", "store": store} for store in STORES]
SAYS_SOMETHING = ("complete", "stopped", "interrupted")


@dataclass
class Node:
    id: UUID
    parent: UUID | None
    role: str
    content: str = ""
    status: str = "pending"


@dataclass
class Tree:
    """What a person would remember, written down by the rules of docs/memory.md alone."""

    nodes: dict[UUID, Node] = field(default_factory=dict)
    #: Oldest first; the last one ends the active branch.
    written: list[UUID] = field(default_factory=list)

    def add(self, node: Node) -> None:
        self.nodes[node.id] = node
        self.written.append(node.id)

    def said(self, leaf: UUID | None, limit: int) -> list[str]:
        found: list[str] = []
        while leaf is not None:
            node = self.nodes[leaf]
            if node.content and node.status in SAYS_SOMETHING:
                found.append(f"{'Q' if node.role == 'USER' else 'A'}: {node.content}")
            leaf = node.parent
        return found[:limit][::-1]

    def some(self, draw: random.Random, role: str) -> Node | None:
        found = [node for node in self.nodes.values() if node.role == role and node.status != "pending"]
        return draw.choice(found) if found else None


class Walk:
    """A random walk over what people do; the rows are written by chat's own functions."""

    def __init__(self, talk: Conversation, caller: Caller, seed: int) -> None:
        self.talk, self.caller, self.tree = talk, caller, Tree()
        self.draw = random.Random(seed)
        self.open: list[Turn] = []
        self.count = 0

    async def step(self) -> None:
        act = self.draw.choices(
            [self.send, self.branch, self.edit, self.regenerate, self.delete, self.end, self.flush],
            [5, 1, 3, 3, 2, 9, 0.5],
        )[0]
        await act()

    def text(self) -> str:
        self.count += 1
        return f"text {self.count}"

    async def send(self, parent: UUID | None = None) -> None:
        if len(self.open) > 2:
            return
        text, ends = self.text(), self.tree.written[-1] if self.tree.written else None
        done = await self.accept(turns.accept, text=text, parent=parent)
        self.tree.add(Node(done.message_id, parent or ends, "USER", text, "complete"))
        self.answered(done)

    async def branch(self) -> None:
        node = self.tree.some(self.draw, "ASSISTANT")
        if node is not None:
            await self.send(node.id)

    async def edit(self) -> None:
        node = self.tree.some(self.draw, "USER")
        if node is None or len(self.open) > 2:
            return
        text = self.text()
        done = await self.accept(branches.edit, node.id, text=text)
        self.tree.add(Node(done.message_id, node.parent, "USER", text, "complete"))
        self.answered(done)

    async def regenerate(self) -> None:
        node = self.tree.some(self.draw, "ASSISTANT")
        if node is None or node.parent is None or len(self.open) > 2:
            return
        if self.tree.nodes[node.parent].content:  # else the question was deleted
            self.answered(await self.accept(branches.regenerate, node.id))

    async def delete(self) -> None:
        node = self.tree.some(self.draw, self.draw.choice(["USER", "ASSISTANT"]))
        if node is None or any(turn.question_id == node.id for turn in self.open):
            return
        done = await database.run(branches.delete, self.caller, self.talk.session_id, node.id)
        node.content = ""
        if done.outdated is not None and self.draw.random() < 0.7:  # it is best effort
            await forget(self.talk.session_id, epoch=done.outdated)

    async def end(self) -> None:
        """An answer ends, as chat.answers tells it; now and then the copies miss that, or hear it twice."""
        if not self.open:
            return
        turn = self.open.pop(0)
        status = self.draw.choice(["complete", "complete", "stopped", "failed", "interrupted"])
        text = self.draw.choice(["", self.text(), self.text()])
        await database.run(self.write_end, turn, status, text)
        node = self.tree.nodes[turn.answer_id]
        node.content, node.status = text, status
        question = Said(
            order=turn.question_order, role="USER", content=turn.question, id=turn.question_id, parent=turn.leaf
        )
        answer = Said(
            order=turn.answer_order,
            role="ASSISTANT",
            content=text,
            status=status,
            id=turn.answer_id,
            parent=turn.question_id,
        )
        for _ in range(self.draw.choice([0, 1, 1, 1, 2])):
            await remember(self.talk.session_id, [question, answer], definition=DEFINITION, epoch=turn.epoch)

    @staticmethod
    def write_end(turn: Turn, status: str, text: str) -> None:
        ChatHistory.objects.filter(id=turn.answer_id).update(content=text, status=status)
        Run.objects.filter(id=turn.run_id).update(status=status)

    async def flush(self) -> None:
        async with redis.guarded() as client:
            await client.flushdb()

    async def accept(self, commit: Any, *args: Any, **values: Any) -> Accepted:
        asked = {"client_id": str(uuid4()), "owner": "test", **values}
        return await database.run(commit, self.caller, self.talk.session_id, *args, **asked)

    def answered(self, done: Accepted) -> None:
        assert done.turn is not None
        self.tree.add(Node(done.answer_id, done.message_id, "ASSISTANT"))
        self.open.append(done.turn)

    async def check(self) -> None:
        """What the next question, and each one that waits, would be told."""
        limit = self.draw.randint(1, 12)
        ends = self.tree.written[-1] if self.tree.written else None
        for store in STORES:
            found = await open_store(store, self.talk.session_id).aget_messages(limit=limit)
            assert shown(found) == self.tree.said(ends, limit), store
            for turn in self.open[:1]:
                mine = await database.run(turns.in_its_turn, turn)
                found = await open_store(store, self.talk.session_id, leaf=mine.leaf, epoch=mine.epoch).aget_messages(
                    limit=limit, before_order=mine.question_order
                )
                assert shown(found) == self.tree.said(mine.leaf, limit), (store, "in its turn")


def shown(messages: Any) -> list[str]:
    return [f"{'Q' if message.type == 'human' else 'A'}: {message.text}" for message in messages]


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_happens_to_a_conversation_all_stores_recall_its_branch(seed, redis_url, monkeypatch, settings):
    settings.DJANGO_CHAIN = settings.DJANGO_CHAIN | {
        "MEMORY": {"MAX_MESSAGES": 6}
    }  # so that tails lose their beginning
    monkeypatch.setattr(leases, "_held", {})
    inmemory._sessions.clear()
    talk = await Conversation.begin()
    caller = await database.run(lambda: caller_of(ChatSession.objects.get(id=talk.session_id).user))
    walk = Walk(talk, caller, seed)
    try:
        for _ in range(40):
            await walk.step()
            await walk.check()
    finally:
        await redis.close()
    assert len(walk.tree.nodes) > 15
    assert {node.status for node in walk.tree.nodes.values()} >= {MessageStatus.COMPLETE, MessageStatus.FAILED}
