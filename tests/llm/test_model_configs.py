"""Aliases in the database: what a row may say, what it means, and whose key goes where."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection
from pytest_django import Settings

from accounts.models import Workspace
from kernel import database
from kernel.errors import Conflict, Invalid, Misconfigured, NotFound
from llm import aliases, configuration, effective, model_configs, signals
from llm.aliases import BuiltModel
from llm.configuration import Configuration
from llm.models import ModelConfig

pytestmark = pytest.mark.django_db(transaction=True)

OPERATORS = "sk-operators-own"
HOUSE = "https://gateway.example/v1"


@pytest.fixture(autouse=True)
def _setting(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-environment")
    monkeypatch.setenv("TEAM_KEY", "sk-of-the-variable")
    place = {"base_url": f"{HOUSE}/", "api_key": OPERATORS, "default_headers": {"X-Gate": "operators-header"}}
    settings.DJANGO_CHAIN = {
        "LLM": {
            "MODELS": {
                "default": {
                    "PROVIDER": "openai",
                    "MODEL": "big",
                    "OPTIONS": {**place, "temperature": 0.5, "top_p": 0.9},
                    "TOTAL_TIMEOUT": 100.0,
                    "MAX_CONCURRENT": 4,
                },
                "small": {"PROVIDER": "fake", "MODEL": "fake"},
            },
            "ROUTES": {"both": {"MODELS": ["default", "small"]}},
            "ALLOWED_BASE_URLS": [HOUSE, "https://other.example/v1"],
            "ALLOWED_KEY_VARIABLES": ["TEAM_KEY"],
        }
    }


@pytest.fixture
def workspace() -> UUID:
    return Workspace.objects.create(name="one").id


def put(workspace_id: UUID | None, alias: str = "default", **more: Any) -> ModelConfig:
    return model_configs.put(workspace_id, alias, user_id=None, **more)


def holding(workspace_id: UUID) -> Configuration:
    return configuration.load(workspace_id)


def build(workspace_id: UUID, alias: str = "default") -> BuiltModel:
    return aliases.build(effective.find(alias, holding(workspace_id)))


def sent(model: BuiltModel) -> tuple[str, str, Any]:
    """Where its requests go, with which key and headers."""
    chat: Any = model.chat
    return chat.openai_api_base, chat.openai_api_key.get_secret_value(), chat.default_headers


# What a row means ----------------------------------------------------------------------------------------------------


def test_a_workspaces_row_stands_before_the_one_for_all_before_the_setting(workspace: UUID) -> None:
    other = Workspace.objects.create(name="two").id
    put(None, model="for-all")
    put(workspace, model="own")

    assert build(workspace).bounds.model == "own"
    assert build(other).bounds.model == "for-all"
    model_configs.delete(workspace, "default", user_id=None)
    assert build(workspace).bounds.model == "for-all"
    model_configs.delete(None, "default", user_id=None)
    assert build(workspace).bounds.model == "big"


def test_at_the_same_place_a_row_changes_only_what_it_names(workspace: UUID) -> None:
    put(workspace, options={"temperature": 0.1}, bounds={"FIRST_TOKEN_TIMEOUT": 9})

    model = build(workspace)

    assert sent(model) == (f"{HOUSE}/", OPERATORS, {"X-Gate": "operators-header"})
    assert (model.bounds.model, model.parameters) == ("big", {"temperature": 0.1, "top_p": 0.9})
    assert (model.bounds.first_token_timeout, model.bounds.total_timeout) == (9, 100)


def test_a_new_alias_needs_a_provider_and_a_model(workspace: UUID) -> None:
    with pytest.raises(Invalid, match="`provider` and `model`"):
        put(workspace, "mine", model="m")
    put(workspace, "mine", provider="fake", model="m", options={"max_tokens": 5})
    assert build(workspace, "mine").parameters == {"max_tokens": 5}
    with pytest.raises(Misconfigured, match="no model 'mine'"):
        effective.find("mine")


# Whose key goes where ------------------------------------------------------------------------------------------------


def test_a_workspaces_own_key_goes_without_the_operators_secrets(workspace: UUID) -> None:
    put(workspace, key="sk-tenants")

    where, key, headers = sent(build(workspace))

    assert (where, key) == (f"{HOUSE}/", "sk-tenants")
    assert not headers


@pytest.mark.parametrize("address", ["https://other.example/v1", f"{HOUSE}/elsewhere"])
def test_no_key_of_the_operators_goes_to_another_address(workspace: UUID, address: str) -> None:
    for place in (workspace, None):
        put(place, base_url=address, provider="openai", model="m")
        where, key, headers = sent(build(workspace))
        assert (where, key) == (address, "none")
        assert not headers


def test_no_key_of_the_operators_goes_to_another_provider(workspace: UUID) -> None:
    pytest.importorskip("langchain_google_genai")
    with pytest.raises(Invalid, match="give a `key`"):
        put(workspace, provider="google", model="gemini")


def test_the_same_address_in_another_form_keeps_the_operators_key(workspace: UUID) -> None:
    put(workspace, base_url="HTTPS://Gateway.example:443/v1", model="other")
    assert sent(build(workspace))[1] == OPERATORS


def test_an_address_that_may_hold_a_secret_is_not_taken_over(workspace: UUID, settings: Settings) -> None:
    settings.DJANGO_CHAIN["LLM"]["MODELS"]["default"]["OPTIONS"]["base_url"] = "https://me:pass@gateway.example/v1"
    settings.DJANGO_CHAIN = dict(settings.DJANGO_CHAIN)
    with pytest.raises(Invalid, match="base_url") as refused:
        put(workspace, key="sk-tenants")
    assert "pass@" not in str(refused.value)


def test_only_the_operator_takes_keys_from_the_environment(workspace: UUID) -> None:
    with pytest.raises(Invalid, match="environment"):
        put(workspace, key_variable="TEAM_KEY")
    with pytest.raises(Invalid, match="ALLOWED_KEY_VARIABLES"):
        put(None, key_variable="OPENAI_API_KEY")
    put(None, key_variable="TEAM_KEY")
    assert sent(build(workspace))[1:] == ("sk-of-the-variable", {"X-Gate": "operators-header"})


def test_what_the_operator_allows_no_longer_is_not_used_any_more(workspace: UUID, settings: Settings) -> None:
    put(None, key_variable="TEAM_KEY")
    put(workspace, "mine", provider="openai", model="m", base_url="https://other.example/v1", key="k")
    settings.DJANGO_CHAIN = {
        "LLM": settings.DJANGO_CHAIN["LLM"] | {"ALLOWED_BASE_URLS": [], "ALLOWED_KEY_VARIABLES": []}
    }

    for alias, setting in (("default", "ALLOWED_KEY_VARIABLES"), ("mine", "ALLOWED_BASE_URLS")):
        with pytest.raises(Misconfigured, match=setting):
            build(workspace, alias)


def test_a_stored_key_stays_only_where_it_was_given_for(workspace: UUID) -> None:
    put(workspace, key="sk-tenants")
    put(workspace, model="other")
    assert sent(build(workspace))[1] == "sk-tenants"
    with pytest.raises(Invalid, match="anew"):
        put(workspace, base_url="https://other.example/v1")
    put(workspace, key="")
    assert sent(build(workspace))[1] == OPERATORS


async def test_two_workspaces_never_share_a_model_with_a_key(live_database: None) -> None:
    one, two = [(await Workspace.objects.acreate(name=name)).id for name in ("one", "two")]

    def prepare() -> list[Configuration]:
        put(one, key="sk-one")
        put(two, key="sk-two")
        return [holding(one), holding(two), holding(uuid4())]

    first, second, third = [aliases.resolve("default", each) for each in await database.run(prepare)]

    assert {sent(model)[1] for model in (first, second, third)} == {"sk-one", "sk-two", OPERATORS}
    assert len({model.place for model in (first, second, third)}) == 3
    assert aliases.resolve("default", await database.run(holding, one)) is first


async def test_the_operators_key_has_one_room_whatever_workspaces_change(live_database: None) -> None:
    one = (await Workspace.objects.acreate(name="one")).id
    await database.run(lambda: put(one, options={"temperature": 0}, bounds={"TOTAL_TIMEOUT": 5}))

    changed, plain = aliases.resolve("default", await database.run(holding, one)), aliases.resolve("default")

    assert changed.key != plain.key
    assert changed.place == plain.place
    assert changed.bounds.max_concurrent == 4


def test_a_workspace_can_not_widen_the_operators_room(workspace: UUID) -> None:
    with pytest.raises(Invalid, match="MAX_CONCURRENT"):
        put(workspace, bounds={"MAX_CONCURRENT": 1000})
    put(workspace, key="k", bounds={"MAX_CONCURRENT": 1000})
    assert build(workspace).bounds.max_concurrent == 1000
    # A row that was written before the operator's alias was what it is now says no more than that.
    row = ModelConfig.objects.get(workspace_id=workspace, alias="default")
    row.encrypted_key = ""
    row.save()
    assert build(workspace).bounds.max_concurrent != 1000


# Secrets -------------------------------------------------------------------------------------------------------------


def test_a_key_is_nowhere_to_be_read(workspace: UUID, caplog: pytest.LogCaptureFixture) -> None:
    row = put(workspace, key="sk-tenants")
    stored = holding(workspace)
    found = effective.find("default", stored)
    described = aliases.describe("default", stored)

    with connection.cursor() as cursor:
        cursor.execute("SELECT m::text FROM llm_modelconfig m")
        in_the_table = str(cursor.fetchall())
    shown = [repr(each) for each in (row, vars(row), stored, found, described, aliases.build(found))]
    assert described.has_key
    for text in (*shown, in_the_table, caplog.text):
        assert "sk-tenants" not in text
        assert OPERATORS not in text


def test_an_error_of_the_sdk_does_not_tell_the_key(workspace: UUID) -> None:
    with pytest.raises(Invalid) as refused:
        put(workspace, key="sk-tenants", options={"temperature": "sk-warm"})
    assert "'temperature'" in str(refused.value)
    assert "sk-" not in str(refused.value)


@pytest.mark.parametrize("key", ["a b", "a\nX-Evil: 1", "schlüssel", "x" * 1001])
def test_a_key_that_no_header_can_carry_is_refused(workspace: UUID, key: str) -> None:
    with pytest.raises(Invalid, match="key"):
        put(workspace, key=key)


def test_new_encryption_keys_are_rotated_in(workspace: UUID, settings: Settings) -> None:
    put(workspace, key="sk-tenants")
    settings.DJANGO_CHAIN = {"LLM": settings.DJANGO_CHAIN["LLM"] | {"ENCRYPTION_KEYS": ["new"]}}

    assert model_configs.reencrypt() == 1

    settings.SECRET_KEY = "another"
    assert sent(build(workspace))[1] == "sk-tenants"


def test_a_key_that_can_not_be_decrypted_is_the_operators_to_mend(workspace: UUID, settings: Settings) -> None:
    put(workspace, key="sk-tenants")
    settings.SECRET_KEY = "another"
    with pytest.raises(Misconfigured, match="ENCRYPTION_KEYS"):
        build(workspace)


# What a row may say --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"alias": "with space"}, "alias"),
        ({"alias": ""}, "alias"),
        ({"alias": "x" * 101}, "alias"),
        ({"provider": "nobody"}, "known: fake, google"),
        ({"model": "m\x00"}, "printable"),
        ({"options": {"base_url": "https://evil.net"}}, "'base_url' can't be stored"),
        ({"options": {"api_key": "k"}}, "'api_key' can't be stored"),
        ({"options": {"temperature": float("nan")}}, "'temperature'"),
        ({"options": {"stop": ["x" * 300]}}, "'stop'"),
        ({"options": {"stop": {"a": 1}}}, "'stop'"),
        ({"bounds": {"TOTAL_TIMEOUT": 0}}, "TOTAL_TIMEOUT"),
        ({"bounds": {"TOTAL_TIMEOUT": 1e9}}, "TOTAL_TIMEOUT"),
        ({"bounds": {"MAX_RETRIES": 1000}}, "bound"),
        ({"bounds": {"PROVIDER": "fake"}}, "no bound 'PROVIDER'"),
        ({"bounds": {"total_timeout": 5}}, "no bound 'total_timeout'"),
        ({"base_url": "https://evil.net"}, "ALLOWED_BASE_URLS"),
        ({"key": "k", "key_variable": "TEAM_KEY"}, "either"),
        ({"route": {"models": []}}, "models"),
        ({"route": {"models": ["nobody"]}}, "'nobody'"),
        ({"route": {"models": ["both"]}}, "is a route"),
        ({"route": {"models": ["small"], "strategy": "best"}}, "strategy"),
        ({"route": {"models": ["small"], "strategy": "weighted", "weights": []}}, "weights"),
        ({"route": {"models": ["small"], "extra": 1}}, "extra"),
        ({"route": {"models": ["small"]}, "provider": "fake"}, "route is made of models"),
    ],
)
def test_what_a_row_may_not_say(workspace: UUID, given: dict[str, Any], said: str) -> None:
    given = {"alias": "new", **({} if "route" in given else {"provider": "fake", "model": "m"}), **given}
    with pytest.raises(Invalid, match=said):
        put(workspace, given.pop("alias"), **given)
    assert not ModelConfig.objects.exists()


def test_a_route_of_a_workspace(workspace: UUID) -> None:
    put(workspace, "mine", provider="fake", model="m")
    put(workspace, "pair", route={"models": ["mine", "small"], "strategy": "weighted", "weights": [3, 1]})

    described = aliases.describe("pair", holding(workspace))

    assert described.route == {"models": ["mine", "small"], "strategy": "weighted", "weights": [3, 1]}
    with pytest.raises(Conflict, match="'pair'"):
        model_configs.delete(workspace, "mine", user_id=None)
    with pytest.raises(Invalid, match="'pair'"):
        put(workspace, "mine", route={"models": ["small"]})
    with pytest.raises(Invalid, match="itself"):
        put(workspace, "small2", route={"models": ["small2"]})


async def test_a_member_that_can_not_be_built_is_left_out_while_another_one_can(
    live_database: None, settings: Settings
) -> None:
    settings.DJANGO_CHAIN = {
        "LLM": settings.DJANGO_CHAIN["LLM"] | {"MODELS": {
            "default": {"PROVIDER": "house", "MODEL": "m"}, "small": {"PROVIDER": "fake", "MODEL": "fake"},
        }, "PROVIDERS": {"house": "nowhere.at:all"}}
    }  # fmt: skip

    assert [model.alias for model in aliases.candidates("both").models] == ["small"]
    with pytest.raises(Misconfigured, match="nowhere"):
        aliases.candidates("default")


def test_there_is_a_bound_on_rows(workspace: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_configs, "_MOST_ROWS", 1)
    put(workspace, "one", provider="fake", model="m")
    with pytest.raises(Conflict):
        put(workspace, "two", provider="fake", model="m")
    put(workspace, "one", provider="fake", model="n")


def test_what_is_not_there_can_not_be_deleted(workspace: UUID) -> None:
    put(None, model="for-all")
    with pytest.raises(NotFound):
        model_configs.delete(workspace, "default", user_id=None)


# Being told ----------------------------------------------------------------------------------------------------------


def test_changes_are_told_after_they_hold(workspace: UUID) -> None:
    told = []

    def receive(**about: Any) -> None:
        told.append((about["workspace_id"], about["alias"], ModelConfig.objects.count()))

    signals.model_changed.connect(receive)
    try:
        put(workspace, model="m")
        with pytest.raises(Invalid):
            put(workspace, model="\x00")
        model_configs.delete(workspace, "default", user_id=None)
    finally:
        signals.model_changed.disconnect(receive)

    assert told == [(workspace, "default", 1), (workspace, "default", 0)]


async def test_two_changes_at_once_leave_one_row(live_database: None) -> None:
    one = (await Workspace.objects.acreate(name="one")).id

    await asyncio.gather(
        *(database.run(lambda n=n: put(one, "mine", provider="fake", model=f"m{n}")) for n in range(6))
    )

    assert await ModelConfig.objects.filter(workspace_id=one).acount() == 1
