"""A branch is read by one query that touches only the rows it returns, however long the conversation is."""

import json
from uuid import uuid4

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.test.utils import CaptureQueriesContext

from chat.models import ChatHistory, ChatSession
from memory.truth import branch, last_rows

pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module")
def sizes() -> tuple[int, ...]:
    return (10, 1_000, 10_000)


def conversation(messages: int) -> tuple[ChatSession, list[ChatHistory]]:
    """A session of so many messages, each of which follows the one before."""
    user = get_user_model().objects.create_user(f"talker-{uuid4()}")
    session = ChatSession(user=user, workspace=user.personal_workspace, last_order=messages)
    rows: list[ChatHistory] = []
    for order in range(1, messages + 1):
        row = ChatHistory(
            workspace=user.personal_workspace,
            session=session,
            parent=rows[-1] if rows else None,
            role="USER" if order % 2 else "ASSISTANT",
            content=f"m{order}",
            order=order,
            seq=order,
            accepted_seq=order,
        )
        rows.append(row)
    session.head_id = rows[-1].id
    session.save(force_insert=True)
    ChatHistory.objects.bulk_create(rows)
    return session, rows


def visited(plan: dict) -> int:
    """Rows that the scans of a plan gave, in all their rounds."""
    own = plan["Actual Rows"] * plan["Actual Loops"] if "Relation Name" in plan else 0
    return int(own + sum(visited(part) for part in plan.get("Plans", [])))


def scans(plan: dict) -> set[str]:
    own = {plan["Node Type"]} if "Relation Name" in plan else set()
    return own.union(*(scans(part) for part in plan.get("Plans", [])))


def test_a_turn_reads_as_many_rows_of_ten_thousand_messages_as_of_ten(sizes):
    talks = [conversation(size) for size in sizes]
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE chat_chathistory, chat_chatsession")
    read = []
    for session, rows in talks:
        with CaptureQueriesContext(connection) as queries:
            found = last_rows(session.id, limit=8, leaf=rows[-1].id)
        assert [row.order for row in found] == [row.order for row in rows[-8:]]
        assert len(queries) == 1
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {queries[0]['sql']}")
            plan = cursor.fetchone()[0]
        top = (json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]
        assert "Seq Scan" not in scans(top)
        read.append(visited(top))
    assert read[0] == read[1] == read[2] <= 8 + 1


def test_without_a_leaf_it_is_the_active_branch():
    session, rows = conversation(6)
    assert [row.order for row in last_rows(session.id, limit=4)] == [3, 4, 5, 6]
    ChatSession.objects.filter(id=session.id).update(head_id=rows[3].id)
    assert [row.order for row in last_rows(session.id, limit=3)] == [2, 3, 4]


def test_siblings_are_not_of_the_branch():
    session, rows = conversation(6)
    ChatHistory.objects.filter(id=rows[4].id).update(parent=rows[1])
    assert [row.order for row in last_rows(session.id, limit=9)] == [1, 2, 5, 6]
    assert [row.order for row in last_rows(session.id, limit=9, leaf=rows[3].id)] == [1, 2, 3, 4]


def test_the_walk_goes_through_what_says_nothing():
    session, rows = conversation(8)
    of = ChatHistory.objects.filter
    of(id__in=[rows[2].id, rows[3].id]).update(is_deleted=True, content="")
    of(id=rows[5].id).update(status="failed")
    of(id=rows[7].id).update(status="pending", content="")
    assert [row.order for row in last_rows(session.id, limit=4)] == [1, 2, 5, 7]
    assert [row.order for row in branch(session.id, limit=3)] == [2, 3, 4, 5, 6, 7, 8]
    assert [row.order for row in branch(session.id, limit=3) if row.pending] == [8]


def test_a_message_of_another_session_is_no_leaf():
    (session, _), (_, others) = conversation(2), conversation(2)
    assert last_rows(session.id, limit=5, leaf=others[-1].id) == []
