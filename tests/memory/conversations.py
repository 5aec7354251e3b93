"""A conversation for tests of memory: it writes ChatHistory as chat does, and tells memory as chat does."""

from __future__ import annotations

from itertools import count
from typing import Any
from uuid import UUID

from django.contrib.auth import get_user_model
from django.db.models import F

from chat.models import ChatHistory, ChatSession
from kernel import database
from kernel.ids import new_id
from memory.exchange import Said, open_store, remember
from memory.truth import last_rows

_names = count()


class Conversation:
    def __init__(self, session_id: UUID, workspace_id: UUID) -> None:
        self.session_id = session_id
        self.workspace_id = workspace_id
        self.orders = 0
        self.head: UUID | None = None

    @classmethod
    async def begin(cls) -> Conversation:
        session = await database.run(_session)
        return cls(session.id, session.workspace_id)

    @classmethod
    async def of(cls, turns: int) -> Conversation:
        """A conversation of so many turns, made at once."""
        talk = await cls.begin()
        await database.run(talk._write, [each for number in range(turns) for each in talk._turn(number)])
        return talk

    @property
    def next_order(self) -> int:
        """The place of the question that comes next."""
        return self.orders + 1

    async def say(self, question: str, answer: str = "", *, status: str = "complete", store: str = "") -> list[Said]:
        """A whole turn; with `store` memory is told to write it through there."""
        turn = self._ask(question, answer, status)
        await database.run(self._write, turn)
        if store:
            await self.tell(turn, store)
        return turn

    async def tell(self, said: list[Said], store: str) -> None:
        await remember(self.session_id, said, definition=[{"type": "memory", "store": store}])

    async def recall(self, store: str, *, limit: int = 20, before_order: int | None = None) -> list[str]:
        messages = await open_store(store, self.session_id).aget_messages(
            limit=limit, before_order=before_order or self.next_order
        )
        return [f"{'Q' if message.type == 'human' else 'A'}: {message.text}" for message in messages]

    async def truth(self, *, limit: int = 20, before_order: int | None = None) -> list[str]:
        rows = await database.run(last_rows, self.session_id, limit=limit, before_order=before_order or self.next_order)
        return [f"{'Q' if row.role == 'USER' else 'A'}: {row.content}" for row in rows]

    async def change(self, order: int, **values: Any) -> None:
        """Change a row behind memory's back."""
        rows = ChatHistory.objects.filter(session_id=self.session_id, order=order)
        await database.run(lambda: rows.update(**values))

    async def next_epoch(self) -> int:
        """The session's past has changed; the epoch before that."""
        sessions = ChatSession.objects.filter(id=self.session_id)
        await database.run(lambda: sessions.update(memory_epoch=F("memory_epoch") + 1))
        return await database.run(lambda: sessions.get().memory_epoch) - 1

    def _ask(self, question: str, answer: str, status: str = "complete") -> list[Said]:
        asked, said = new_id(), new_id()
        turn = [
            Said(order=self.orders + 1, role="USER", content=question, id=asked, parent=self.head),
            Said(order=self.orders + 2, role="ASSISTANT", content=answer, status=status, id=said, parent=asked),
        ]
        self.orders += 2
        self.head = said
        return turn

    def _turn(self, number: int) -> list[Said]:
        return self._ask(f"Tell me of number {number}.", f"It is number {number}, as said.")

    def _write(self, said: list[Said]) -> None:
        rows = [
            ChatHistory(
                id=each.id,
                parent_id=each.parent,
                workspace_id=self.workspace_id,
                session_id=self.session_id,
                role=each.role,
                content=each.content,
                status=each.status,
                order=each.order,
                seq=each.order,
                accepted_seq=each.order,
            )
            for each in said
        ]
        ChatHistory.objects.bulk_create(rows, batch_size=2000)
        ChatSession.objects.filter(id=self.session_id).update(
            head_id=self.head, last_order=self.orders, seq=self.orders
        )


def _session() -> ChatSession:
    user = get_user_model().objects.create_user(f"talker-{next(_names)}")
    return ChatSession.objects.create(user=user, workspace=user.personal_workspace)
