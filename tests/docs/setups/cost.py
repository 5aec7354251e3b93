"""A workspace whose one call has a price."""

from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest

from accounts.access import workspace_for
from kernel import database
from llm.models import InteractionLog, ModelPrice
from tests.conftest import Person

_MODEL = "gpt-5-mini"


async def names(person: Person, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    workspace = await database.run(workspace_for, person.caller)
    call = {"provider": "openai", "model_name": _MODEL, "status": "ok", "cost": Decimal("0.5"), "price": {}}
    await database.run(InteractionLog.objects.create, workspace=workspace, run_id=uuid4(), **call)
    return {"workspace": workspace}


async def check(names: dict[str, Any]) -> None:
    assert _MODEL not in {one.model for one in names["missing"]}
    [group] = names["by_day"]
    assert (group["calls"], group["cost"], group["model"]) == (1, Decimal("0.5"), _MODEL)
    await database.run(ModelPrice.objects.filter(model_name=_MODEL).delete)
