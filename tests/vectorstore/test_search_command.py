"""`manage.py search` in the terminal."""

import json
from io import StringIO

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command

from llm.tasks import run_async
from vectorstore.manager import VectorStoreManager
from vectorstore.values import SourceDocument

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def filled():
    # Those of tests through live servers share this database.
    get_user_model().objects.all().delete()
    user = get_user_model().objects.create_user("ada")
    documents = [
        SourceDocument(source="sky.md", text="the sky [bold] is blue", title="Sky", metadata={"year": 2020}),
        SourceDocument(source="sea.md", text="the sea is deep", title="Sea", metadata={"year": 2021}),
    ]
    run_async(VectorStoreManager(user.personal_workspace.id).ingest, documents)


def search(*arguments):
    out = StringIO()
    call_command("search", *arguments, stdout=out)
    return out.getvalue()


@pytest.mark.parametrize("mode", ["vector", "text", "hybrid"])
def test_people_see_the_passage_and_where_it_stands(filled, mode):
    shown = search("blue sky", "--mode", mode, "--k", "1")
    assert "sky.md" in shown
    assert "[bold]" in shown
    assert "sea.md" not in shown


def test_programs_get_json(filled):
    (hit,) = json.loads(search("sea", "--mode", "text", "--json"))["hits"]
    assert (hit["source"], hit["text"], hit["metadata"]["year"]) == ("sea.md", "the sea is deep", 2021)


def test_a_filter_narrows(filled):
    found = json.loads(search("sky or sea", "--json", "--where", '{"eq": {"year": 2021}}'))["hits"]
    assert [hit["source"] for hit in found] == ["sea.md"]


def test_nothing_found_is_said(filled):
    assert search("zebra", "--mode", "text") == "Nothing found.\n"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--k", "51"], "from 1 to 50"),
        (["--where", "{"], "no JSON"),
        (["--where", '{"like": {"a": 1}}'], "like"),
        (["--collection", "missing"], "no such collection"),
        (["--user", "bob"], "no user"),
        (["--rerank", "nobody"], "no reranker"),
    ],
)
def test_what_is_wrong_is_said(filled, arguments, why):
    with pytest.raises(CommandError, match=why):
        search("sky", *arguments)
