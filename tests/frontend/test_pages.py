"""The pages without a browser: who may see them, and under which policy."""

import re
from pathlib import Path
from uuid import uuid4

import pytest
from django.contrib.auth import get_user_model
from django.test import Client

from accounts.access import caller_of
from chat import sessions
from frontend.middleware import POLICY

pytestmark = pytest.mark.django_db
FRONTEND = Path(__file__).resolve().parents[2] / "frontend"


@pytest.fixture
def visitor() -> Client:
    client = Client()
    client.force_login(get_user_model().objects.create_user("ann", "ann@example.org", "correct horse"))
    return client


def test_the_chat_is_behind_sign_in(client: Client) -> None:
    for path in ("/", f"/c/{uuid4()}/"):
        response = client.get(path)
        assert (response.status_code, response.headers["Location"]) == (302, f"/accounts/login/?next={path}")


def test_a_missing_and_a_foreign_conversation_are_the_same_404(visitor: Client) -> None:
    other = get_user_model().objects.create_user("bob", "bob@example.org", "correct horse")
    theirs = sessions.create_session(caller_of(other)).id
    answers = [visitor.get(f"/c/{each}/") for each in (theirs, uuid4())]
    assert [answer.status_code for answer in answers] == [404, 404]
    assert answers[0].content == answers[1].content


def test_ones_own_conversation_opens_by_its_address(visitor: Client) -> None:
    mine = sessions.create_session(caller_of(get_user_model().objects.get(username="ann"))).id
    assert f'data-session="{mine}"' in visitor.get(f"/c/{mine}/").content.decode()


@pytest.mark.parametrize(
    "path", ["/", "/accounts/login/", "/accounts/email/", "/accounts/password/change/", "/no/such/page"]
)
def test_every_page_of_ours_has_the_policy(visitor: Client, path: str) -> None:
    assert visitor.get(path).headers["Content-Security-Policy"] == POLICY


@pytest.mark.parametrize("path", ["/admin/login/", "/api/v1/docs"])
def test_pages_of_others_bring_their_own_scripts(client: Client, path: str) -> None:
    assert "Content-Security-Policy" not in client.get(path).headers


@pytest.mark.parametrize(
    "path", ["login", "signup", "password/reset", "password/reset/done", "confirm-email", "inactive"]
)
def test_account_pages_have_our_layout_and_nothing_inline(client: Client, path: str) -> None:
    page = client.get(f"/accounts/{path}/").content.decode()
    assert 'class="card"' in page
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", page)


def test_our_files_make_no_html_of_strings_and_name_no_other_host() -> None:
    for file in (*FRONTEND.rglob("*.js"), *FRONTEND.rglob("*.css"), *FRONTEND.rglob("*.html")):
        source = file.read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", source), (
            file
        )
        assert not re.search(r"""(?:src|href|url|from|import)\s*[=(]?\s*["']?https?://""", source), file
        assert not re.search(r"<[^>]+\s(?:style|on\w+)=", source), file
