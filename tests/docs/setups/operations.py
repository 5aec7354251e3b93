"""The operator has a workspace, and the id of a run that waits there."""

from typing import Any
from uuid import uuid4

import pytest

from accounts.access import workspace_for
from chat.models import ChatSession, Run
from chat.sessions import create_session
from chat.turns import accept
from kernel import database
from tests.conftest import Person


async def names(person: Person, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    session = await database.run(create_session, person.caller)
    accepted = await database.run(
        accept, person.caller, session.id, client_id=str(uuid4()), text="why?", owner="nobody:1:abc"
    )
    assert accepted.turn is not None
    return {"workspace": await database.run(workspace_for, person.caller), "run_id": accepted.turn.run_id}


async def check(names: dict[str, Any]) -> None:
    assert [(row["status"], row["calls"]) for row in names["rows"]] == [("started", 1)]
    mine = next(run for run in names["open_runs"] if run["id"] == names["run_id"])
    assert mine["owner"] == "nobody:1:abc"
    run = await database.run(Run.objects.get, id=names["run_id"])
    assert run.stop_requested
    # Nobody should take it over after this.
    await database.run(ChatSession.objects.filter(id=run.session_id).delete)
