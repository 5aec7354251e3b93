"""`manage.py reembed`: what it does, and what it says when it can't."""

from io import StringIO
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command

from tests.vectorstore.conftest import document
from vectorstore.manager import VectorStoreManager
from vectorstore.models import VectorSet

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def name(settings: Any) -> str:
    wide = {"PROVIDER": "fake", "MODEL": "wide", "DIMENSION": 96}
    embeddings = {"PROVIDER": "fake", "DIMENSION": 16, "MODELS": {"wide": wide}}
    settings.DJANGO_CHAIN = settings.DJANGO_CHAIN | {"EMBEDDINGS": embeddings}
    user = get_user_model().objects.create_user("reader-of-fruit")
    manager = VectorStoreManager(user.personal_workspace.id)
    async_to_sync(manager.ingest)([document("red apples")], collection="fruit")
    return "reader-of-fruit"


def reembed(*arguments: str, **options: Any) -> str:
    out = StringIO()
    call_command("reembed", *arguments, stdout=out, **options)
    return out.getvalue().strip()


def active() -> list[int]:
    return list(VectorSet.objects.filter(state="active").values_list("dimension", flat=True))


def test_a_collection_gets_another_model(name):
    assert reembed("fruit", "wide", user=name) == "Searches in fruit ask fake:wide in pgvector now."
    assert active() == [96]


def test_what_can_not_be_done_is_said(name):
    with pytest.raises(CommandError, match="already"):
        reembed("fruit", "default", user=name)
    with pytest.raises(CommandError, match="no embedding model 'wild'"):
        reembed("fruit", "wild", user=name)
    with pytest.raises(CommandError, match="no collection 'fruits'"):
        reembed("fruits", "wide", user=name)
    with pytest.raises(CommandError, match="no user 'nobody'"):
        reembed("fruit", "wide", user="nobody")
    assert reembed("fruit", "wide", user=name, cancel=True) == "There was nothing under way."
    assert active() == [16]
