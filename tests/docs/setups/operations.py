"""The operator has a workspace, the id of a run that waits there, and a former workspace with vectors in Chroma."""

from typing import Any
from uuid import UUID, uuid4

import pytest

from accounts.access import workspace_for
from accounts.models import Workspace
from chat.models import ChatSession, Run
from chat.sessions import create_session
from chat.turns import accept
from kernel import database
from tests.conftest import Person
from vectorstore.models import Chunk, Collection, Document, Garbage, VectorSet


async def names(person: Person, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    session = await database.run(create_session, person.caller)
    accepted = await database.run(
        accept, person.caller, session.id, client_id=str(uuid4()), text="why?", owner="nobody:1:abc"
    )
    assert accepted.turn is not None
    former = await database.run(_former, person)
    return {
        "database": database,
        "workspace": await database.run(workspace_for, person.caller),
        "run_id": accepted.turn.run_id,
        "former": former,
        "former_id": former.id,
    }


def _former(person: Person) -> Workspace:
    former = Workspace.objects.create(name="former")
    place = {"workspace": former, "collection": Collection.objects.create(workspace=former, name="manuals")}
    VectorSet.objects.create(**place, backend="chroma", embedding_model="m", dimension=3)
    document = Document.objects.create(**place, title="t", source="a.md", chunk_count=1)
    Chunk.objects.create(**place, document=document, position=0, text="t", start=0, end=1)
    ChatSession.objects.create(workspace=former, user=person.user)
    return former


async def check(names: dict[str, Any]) -> None:
    assert [(row["status"], row["calls"]) for row in names["rows"]] == [("started", 1)]
    mine = next(run for run in names["open_runs"] if run["id"] == names["run_id"])
    assert mine["owner"] == "nobody:1:abc"
    run = await database.run(Run.objects.get, id=names["run_id"])
    assert run.stop_requested
    assert await database.run(_left, names["former_id"]) == (False, 2)
    # Nobody should take it over after this.
    await database.run(ChatSession.objects.filter(id=run.session_id).delete)


def _left(former: UUID) -> tuple[bool, int]:
    """Whether the workspace is still there; and what is to be removed from Chroma: the vector, and the whole set."""
    # The sets are gone: what is left over was made since the workspace was.
    garbage = Garbage.objects.filter(backend="chroma", id__gt=former)
    return Workspace.objects.filter(id=former).exists(), garbage.count()
