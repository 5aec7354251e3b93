# ruff: noqa: E501  a workflow in a test is a line
"""Parsers: what they take, what they never let pass, and how a model mends its answer."""

from collections.abc import Callable
from typing import Any

import pytest

from llm.errors import OutputInvalid
from llm.events import ModelStarted, Text
from llm.registry import parsers
from tests.llm.conftest import Configure
from tests.llm.runs import ran
from tests.support import scripted_provider as script
from tests.support.scripted_provider import ScriptedProvider

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}


def parse(name: str, text: str, **options: Any) -> Any:
    return parsers.get(name)(options).parse(text)


class TestParsers:
    @pytest.mark.parametrize(
        ("name", "options", "text", "value"),
        [
            ("str", {}, " as it is ", " as it is "),
            ("json", {}, '{"a": [1, null]}', {"a": [1, None]}),
            ("json", {}, '```json\n{"a": 1}\n```', {"a": 1}),
            ("json", {}, "\n```\n[1]\n```\n", [1]),
            ("json", {"schema": SCHEMA}, '{"n": 1}', {"n": 1}),
            ("pydantic", {"schema": SCHEMA}, '```JSON\n{"n": 1}\n```', {"n": 1}),
            ("list", {}, "1. red\n2) green\n\n- blue\n* 3 pink", ["red", "green", "blue", "3 pink"]),
            ("list", {"separator": ","}, "a, b,,c ", ["a", "b", "c"]),
            ("regex", {"pattern": r"(?P<n>\d+) of (?P<all>\d+)"}, "page 3 of 7", {"n": "3", "all": "7"}),
            ("regex", {"pattern": r"\d+"}, "page 3 of 7", "3"),
            ("regex", {"pattern": r"(\d+) of"}, "page 3 of 7", "3"),
            ("regex", {"pattern": r"(\d+) of (\d+)"}, "page 3 of 7", ["3", "7"]),
        ],
    )
    def test_make_a_value(self, name: str, options: Any, text: str, value: Any) -> None:
        assert parse(name, text, **options) == value

    @pytest.mark.parametrize(
        ("name", "options", "text"),
        [
            ("json", {}, ""),
            ("json", {}, '{"a": 1'),
            ("json", {}, '[{"a": 1}, {"a"'),
            ("json", {}, '```json\n{"a": 1}'),
            ("json", {}, '{"a": 1} and more'),
            ("json", {}, "Here it is: {}"),
            ("json", {}, '{"a": NaN}'),
            ("json", {}, "[" * 100_000),
            ("json", {"schema": SCHEMA}, '{"n": "1"}'),
            ("pydantic", {"schema": SCHEMA}, '{"n": 1, "m": 2}'),
            ("pydantic", {"schema": SCHEMA}, "[]"),
            ("list", {}, " \n \n"),
            ("regex", {"pattern": r"^\d+$"}, "three"),
        ],
    )
    def test_let_nothing_else_pass(self, name: str, options: Any, text: str) -> None:
        with pytest.raises(ValueError, match=r"."):
            parse(name, text, **options)

    def test_no_prefix_of_a_document_is_taken_for_one(self) -> None:
        whole = '{"a": [1, 2, {"b": "c"}], "d": true}'
        for end in range(len(whole)):
            with pytest.raises(ValueError, match=r"."):
                parse("json", whole[:end])


PARSE = {"type": "parser", "parser": "pydantic", "options": {"schema": SCHEMA}}


class TestRepair:
    async def test_the_model_is_told_the_fault_and_its_answer_counts(
        self, provider: ScriptedProvider, scripted_alias: Callable[..., None]
    ) -> None:
        # The fault quotes the wrong value, and so leads to the second script.
        marker = provider.script("first", script.text('{"n": "[[second]]"}'), script.ok())
        provider.script("second", script.text('{"n": 1}'), script.ok())

        came = await ran([{"type": "llm", "temperature": 0.5}, {**PARSE, "repair": 1}], marker)

        assert came.value == {"n": 1}
        # Nothing of the first answer was seen: what is shown is the answer.
        assert [event.text for event in came.events if isinstance(event, Text)] == ['{"n": 1}']
        (again,) = provider.exchanges("second")
        assert [message["role"] for message in again.messages] == ["user", "assistant", "user"]
        assert again.messages[1]["content"] == '{"n": "[[second]]"}'
        assert 'is not of type "integer"' in again.messages[2]["content"]
        assert again.body["temperature"] == 0.5

    async def test_it_is_tried_as_often_as_the_step_says_and_then_fails_typed(
        self, provider: ScriptedProvider, scripted_alias: Callable[..., None]
    ) -> None:
        came = await ran([{"type": "llm"}, {**PARSE, "repair": 2}], "not json")

        assert isinstance(came.error, OutputInvalid)
        assert len([event for event in came.events if isinstance(event, ModelStarted)]) == 3
        assert came.text == ""

    async def test_without_repair_the_model_is_not_asked_again(self, configure: Configure) -> None:
        configure(default={"PROVIDER": "fake", "MODEL": "fake", "OPTIONS": {"text": '{"n": 1'}})

        came = await ran([{"type": "llm"}, PARSE])

        assert isinstance(came.error, OutputInvalid)
        assert len([event for event in came.events if isinstance(event, ModelStarted)]) == 1
        assert came.text == '{"n": 1'
        assert came.steps[-1] == ("parser", "failed", "steps[1]")

    async def test_an_answer_that_fits_is_not_mended(self, configure: Configure) -> None:
        configure(default={"PROVIDER": "fake", "MODEL": "fake", "OPTIONS": {"text": '{"n": 1}'}})

        came = await ran([{"type": "llm"}, {**PARSE, "repair": 2, "output": "kept"}, {"type": "prompt", "template": "{kept}"}, {"type": "llm"}])  # fmt: skip

        assert came.asked == ["why?", '{"n": 1}']


async def test_what_cant_be_stored_is_not_in_the_value(configure: Configure) -> None:
    configure(default={"PROVIDER": "fake", "MODEL": "fake", "OPTIONS": {"text": '["a\\u0000b", "\\ud83d"]'}})

    assert (await ran([{"type": "llm"}, {"type": "parser", "parser": "json"}])).value == ["a\ufffdb", "\ufffd"]
