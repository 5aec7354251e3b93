"""Who opens the admin: the operator, and staff with some rights."""

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client

from tests.admin.rows import Rows

Staff = Callable[..., Client]


@pytest.fixture
def rows(db: None) -> Rows:
    return Rows()


@pytest.fixture
def operator(db: None) -> Client:
    """A superuser who has signed in."""
    get_user_model().objects.create_superuser("operator", "operator@example.org", "correct horse")
    return signed_in("operator")


@pytest.fixture
def staff(db: None) -> Staff:
    """Somebody of the staff who has signed in, with these rights alone: `staff("llm.view_budget")`."""

    def make(*rights: str) -> Client:
        person: Any = get_user_model().objects.create_user("helper", password="correct horse", is_staff=True)
        for right in rights:
            label, _, name = right.partition(".")
            person.user_permissions.add(Permission.objects.get(content_type__app_label=label, codename=name))
        return signed_in("helper")

    return make


def signed_in(name: str) -> Client:
    """By the admin's own form."""
    client = Client()
    response = client.post("/admin/login/", {"username": name, "password": "correct horse", "next": "/admin/"})
    assert response.status_code == 302, response.content
    return client
