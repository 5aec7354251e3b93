"""A wrong `DJANGO_CHAIN` is an error of `manage.py check` that names the key and the fix."""

from typing import Any

import pytest
from django.core.checks import Error
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.test import override_settings

from kernel.checks import check_setting
from kernel.conf import Config, config, parse
from kernel.errors import Misconfigured

MODELS = {"default": {"PROVIDER": "fake", "MODEL": "fake"}}


def test_an_empty_setting_has_every_default() -> None:
    parsed = parse({})
    assert parsed == Config()
    assert parsed.llm.models["default"].provider == "fake"


def test_values_are_typed_and_frozen() -> None:
    parsed = parse({"CHAT": {"HELLO_TIMEOUT": 2}, "LLM": {"MODELS": MODELS}})
    assert parsed.chat.hello_timeout == 2
    with pytest.raises(AttributeError):
        parsed.chat.hello_timeout = 3  # type: ignore[misc]


WRONG: dict[str, tuple[Any, str]] = {
    "unknown_section": ({"CHATS": {}}, r"DJANGO_CHAIN has an unknown key 'CHATS'; did you mean 'CHAT'\?"),
    "unknown_key": (
        {"CHAT": {"HELO_TIMEOUT": 2}},
        r"DJANGO_CHAIN\['CHAT'\] has an unknown key 'HELO_TIMEOUT'; did you mean 'HELLO_TIMEOUT'\?",
    ),
    "lower_case": ({"CHAT": {"hello_timeout": 2}}, r"unknown key 'hello_timeout'; did you mean 'HELLO_TIMEOUT'\?"),
    "far_from_all": (
        {"REDIS": {"QQQQ": 1}},
        r"DJANGO_CHAIN\['REDIS'\] has an unknown key 'QQQQ'; known keys: URL, PREFIX, MAX_CONNECTIONS, TIMEOUT\.",
    ),
    "nested_in_an_alias": (
        {"LLM": {"MODELS": {"default": {**MODELS["default"], "MODLE": "x"}}}},
        r"DJANGO_CHAIN\['LLM'\]\['MODELS'\]\[…\] has an unknown key 'MODLE'; did you mean 'MODEL'\?",
    ),
    "missing_in_an_alias": ({"LLM": {"MODELS": {"default": {"MODEL": "x"}}}}, r"\['MODELS'\]\[…\].*`?PROVIDER"),
    "wrong_type": (
        {"CHAT": {"HELLO_TIMEOUT": "2"}},
        r"DJANGO_CHAIN\['CHAT'\]\['HELLO_TIMEOUT'\]: Expected `float`, got `str`",
    ),
    "not_positive": ({"CHAT": {"HELLO_TIMEOUT": 0}}, r"\['HELLO_TIMEOUT'\]: Expected `float` > 0"),
    "not_whole": ({"CHAT": {"PAGE_ROWS": 1.5}}, r"\['PAGE_ROWS'\]: Expected `int`"),
    "wrong_in_a_list": ({"CHAT": {"ALLOWED_ORIGINS": ["a", 1]}}, r"_ORIGINS'\]\[…\]: Expected `str`, got `int`"),
    "wrong_choice": ({"CHAT": {"FLOW_CONTROL": "maybe"}}, r"\['FLOW_CONTROL'\]: .*maybe"),
    "section_is_no_dict": ({"CHAT": []}, r"DJANGO_CHAIN\['CHAT'\]: Expected `object`, got `array`"),
    "setting_is_no_dict": ([], r"DJANGO_CHAIN: Expected `object`"),
    "default_model_missing": (
        {"LLM": {"MODELS": MODELS, "DEFAULT_MODEL": "gpt"}},
        r"DJANGO_CHAIN\['LLM'\]\['DEFAULT_MODEL'\] is 'gpt', which .* nor .* defines \(defined: default\)\. Add it",
    ),
    "route_named_as_a_model": (
        {"LLM": {"MODELS": MODELS, "ROUTES": {"default": {"MODELS": ["default"]}}}},
        r"\['ROUTES'\]\['default'\] has the name of a model .*; choose another",
    ),
    "route_to_an_unknown_model": (
        {"LLM": {"MODELS": MODELS, "ROUTES": {"both": {"MODELS": ["default", "gpt"]}}}},
        r"\['ROUTES'\]\['both'\] names 'gpt', which .* does not define \(defined: both, default\)",
    ),
    "weights_missing": (
        {"LLM": {"MODELS": MODELS, "ROUTES": {"both": {"MODELS": ["default"], "STRATEGY": "weighted"}}}},
        r"\['ROUTES'\]\['both'\] is weighted, so WEIGHTS needs 1 numbers",
    ),
    "no_models": ({"LLM": {"MODELS": {}}}, r"\['DEFAULT_MODEL'\] is 'default'.*\(defined: none\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named_with_the_fix(name: str) -> None:
    raw, said = WRONG[name]
    with pytest.raises(Misconfigured, match=said):
        parse(raw)


@pytest.mark.parametrize("name", WRONG)
def test_the_check_says_the_same(name: str) -> None:
    raw, _ = WRONG[name]
    with override_settings(DJANGO_CHAIN=raw):
        (found,) = check_setting(None)
    assert isinstance(found, Error)
    assert found.id == "django_chain.E001"
    assert "DJANGO_CHAIN" in found.msg


def test_manage_check_fails_with_it() -> None:
    with override_settings(DJANGO_CHAIN={"CAHT": {}}), pytest.raises(SystemCheckError, match=r"E001.*CAHT.*CHAT"):
        call_command("check")


def test_a_secret_in_the_setting_is_not_in_the_error() -> None:
    options = {"api_key": "sk-secret"}
    with pytest.raises(Misconfigured) as error:
        parse({"LLM": {"MODELS": {"default": {"PROVIDER": "openai", "MODEL": 5, "OPTIONS": options}}}})
    assert "sk-secret" not in error.value.message


def test_a_changed_setting_is_parsed_anew() -> None:
    before = config().chat.page_rows
    with override_settings(DJANGO_CHAIN={"CHAT": {"PAGE_ROWS": before + 1}}):
        assert config().chat.page_rows == before + 1
    assert config().chat.page_rows == before
