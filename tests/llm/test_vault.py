"""Keys at rest."""

import pytest
from pytest_django import Settings

from kernel.errors import Misconfigured
from llm import vault


def keys(settings: Settings, *entries: str) -> None:
    settings.DJANGO_CHAIN = {"LLM": {"ENCRYPTION_KEYS": list(entries)}}


@pytest.mark.parametrize("entries", [[], ["any text at all"], ["new", "old"]])
def test_what_was_encrypted_is_read_again_and_never_stands_there(settings: Settings, entries: list[str]) -> None:
    keys(settings, *entries)
    token = vault.encrypt("sk-secret")
    assert vault.decrypt(token) == "sk-secret"
    assert "sk-secret" not in token
    assert vault.encrypt("sk-secret") != token


def test_a_new_key_in_front_reads_what_the_old_one_wrote_until_it_is_gone(settings: Settings) -> None:
    keys(settings, "old")
    token = vault.encrypt("sk-secret")

    keys(settings, "new", "old")
    rotated = vault.rotate(token)

    keys(settings, "new")
    assert vault.decrypt(rotated) == "sk-secret"
    with pytest.raises(Misconfigured, match="ENCRYPTION_KEYS"):
        vault.decrypt(token)


def test_the_first_encryption_key_is_added_as_any_other(settings: Settings) -> None:
    keys(settings)
    token = vault.encrypt("sk-secret")
    keys(settings, "new")
    assert vault.decrypt(token) == "sk-secret"
    settings.SECRET_KEY = "another"
    assert vault.decrypt(vault.encrypt("x")) == "x"
    with pytest.raises(Misconfigured):
        vault.decrypt(token)


def test_a_former_secret_key_still_reads(settings: Settings) -> None:
    keys(settings)
    token = vault.encrypt("sk-secret")
    settings.SECRET_KEY_FALLBACKS, settings.SECRET_KEY = [settings.SECRET_KEY], "another"
    assert vault.decrypt(token) == "sk-secret"


@pytest.mark.parametrize("token", ["", "rubbish", "gAAAAA", "\u00e4"])
def test_what_is_no_token_is_a_typed_failure(token: str) -> None:
    with pytest.raises(Misconfigured):
        vault.decrypt(token)
