"""The conversation is read by one query that touches only the rows it returns, however long it is."""

import json
from uuid import uuid4

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.test.utils import CaptureQueriesContext

from chat.models import ChatHistory, ChatSession
from memory.truth import last_rows

pytestmark = pytest.mark.django_db


@pytest.fixture
def long_session() -> ChatSession:
    user = get_user_model().objects.create_user(f"talker-{uuid4()}")
    sessions = [ChatSession(user=user, workspace=user.personal_workspace) for _ in range(3)]
    ChatSession.objects.bulk_create(sessions)
    ChatHistory.objects.bulk_create(
        ChatHistory(
            workspace=user.personal_workspace,
            session=session,
            role="USER" if order % 2 else "ASSISTANT",
            content=f"m{order}",
            order=order,
            seq=order,
            accepted_seq=order,
        )
        for session in sessions
        for order in range(1, 4001)
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE chat_chathistory")
    return sessions[1]


def test_one_query_reads_the_end_backwards_along_its_index(long_session):
    with CaptureQueriesContext(
        connection,
    ) as queries:
        rows = last_rows(long_session.id, limit=20, before_order=3001)
    assert [row.order for row in rows] == list(range(2981, 3001))
    assert len(queries) == 1
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {queries[0]['sql']}")
        plan = cursor.fetchone()[0]
    found = json.loads(plan) if isinstance(plan, str) else plan
    scan = found[0]["Plan"]["Plans"][0]
    assert scan["Index Name"] == "message_order_once"
    assert scan["Actual Rows"] == 20
