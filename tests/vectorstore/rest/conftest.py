"""A workspace with its people, at a live server, and documents in it."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx2 as httpx
import pytest

from accounts.models import Membership, Role, Workspace
from kernel import database
from tests.conftest import Person, make_person
from tests.support.server import Server
from tests.vectorstore.conftest import document
from vectorstore.manager import VectorStoreManager

TEXT = "# Warranty\n\nThe warranty of the X200 lasts two years.\n\n# Returns\n\nReturns are taken back for 30 days."
ROLES = {"admin": Role.ADMIN, "member": Role.MEMBER, "viewer": Role.VIEWER}


@dataclass
class Place:
    """The owner's workspace, and people with each role in it; `other` has none."""

    server: Server
    workspace: UUID
    people: dict[str, Person]
    own_ids: dict[str, UUID]

    def ask(self, who: str, method: str, path: str, **more: Any) -> httpx.Response:
        params = {"workspace": str(self.workspace)} | more.pop("params", {})
        headers = {"Authorization": f"Bearer {self.people[who].token}"} | more.pop("headers", {})
        url = f"{self.server.url}/api/v1{path}"
        return httpx.request(method, url, headers=headers, params=params, timeout=20, **more)

    def get(self, path: str, who: str = "owner", **params: Any) -> Any:
        response = self.ask(who, "GET", path, params=params)
        assert response.status_code == 200, response.text
        return response.json()

    def own(self, who: str) -> str:
        """The id of their own workspace."""
        return str(self.own_ids[who])

    def collection(self, name: str, who: str = "owner", **body: Any) -> str:
        response = self.ask(who, "POST", "/collections", json={"name": name, "workspace": str(self.workspace), **body})
        assert response.status_code == 201, response.text
        return str(response.json()["id"])

    async def ingest(self, text: str = TEXT, *, collection: str = "default", **options: Any) -> str:
        manager = VectorStoreManager(self.workspace)
        [made] = await manager.ingest([document(text, **options)], collection=collection)
        return str(made.document_id)


@pytest.fixture(scope="module", autouse=True)
def emptied() -> None:
    """Not here, in the place of the fixture above: servers are running, and each test has people of its own."""


@pytest.fixture
async def place(servers: tuple[Server, Server], person: Person) -> Place:
    def furnish() -> Place:
        workspace = Workspace.objects.get(personal_of=person.user)
        people = {who: make_person() for who in (*ROLES, "other")}
        for who, role in ROLES.items():
            Membership.objects.create(workspace=workspace, user=people[who].user, role=role)
        own = {who: each.user.personal_workspace.pk for who, each in people.items()}
        return Place(servers[0], workspace.pk, {"owner": person, **people}, own)

    return await database.run(furnish)
