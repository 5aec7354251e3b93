"""Tokens end when they should, and only ours are taken."""

from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core import signing
from django.test import override_settings

from accounts import tokens
from kernel.errors import NotAuthenticated

pytestmark = pytest.mark.django_db

SALT = "django-chain.token.v1"


@pytest.fixture
def user() -> Any:
    return get_user_model().objects.create_user("ada", password="correct horse")


def refused(token: str) -> None:
    with pytest.raises(NotAuthenticated, match="token"):
        tokens.user_of(token)


def test_a_token_names_its_user(user: Any) -> None:
    assert tokens.user_of(tokens.mint(user)) == user


def test_a_changed_password_a_deactivation_and_a_deletion_end_it(user: Any) -> None:
    token = tokens.mint(user)
    user.set_password("another horse")
    user.save()
    refused(token)
    token = tokens.mint(user)
    get_user_model().objects.filter(pk=user.pk).update(is_active=False)
    refused(token)
    user.delete()
    refused(token)


def test_time_ends_it(user: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    token = tokens.mint(user)
    now = signing.time.time()
    monkeypatch.setattr(signing.time, "time", lambda: now + 3599)
    assert tokens.user_of(token) == user
    monkeypatch.setattr(signing.time, "time", lambda: now + 3602)
    refused(token)


def test_another_secret_ends_it(user: Any) -> None:
    token = tokens.mint(user)
    with override_settings(SECRET_KEY="another"):
        refused(token)
    with override_settings(SECRET_KEY="another", SECRET_KEY_FALLBACKS=["tests-only"]):
        assert signing.loads(token, salt=SALT), "a rotated secret still signs, …"
        refused(token)  # … but the user's own hash is made with the new one


def test_other_signed_values_are_no_tokens(user: Any) -> None:
    claims = signing.loads(tokens.mint(user), salt=SALT)
    refused(signing.dumps(claims, salt="other"))
    refused(signing.dumps(claims, salt=SALT, key="stolen"))
    refused(signing.dumps(claims | {"h": claims["h"][:-1] + "!"}, salt=SALT))


def test_every_change_of_a_character_is_refused(user: Any) -> None:
    token = tokens.mint(user)
    for place in range(len(token)):
        other = "A" if token[place] != "A" else "B"
        changed = token[:place] + other + token[place + 1 :]
        try:
            found = tokens.user_of(changed)
        except NotAuthenticated:
            continue
        # The last character of base64 may have bits that mean nothing.
        assert found == user
        assert place == len(token) - 1


def test_a_token_holds_no_name_password_or_whole_hash(user: Any) -> None:
    claims = signing.loads(tokens.mint(user), salt=SALT)
    assert claims == {"u": str(user.pk), "h": user.get_session_auth_hash()[-16:]}
