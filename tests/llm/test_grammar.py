# ruff: noqa: E501  a row of a table is a line
"""The grammar of workflows: what is accepted, where a fault is said to be, and that nothing else can happen."""

import asyncio
import importlib.abc
import json
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm import grammar as grammars
from llm.errors import WorkflowInvalid
from llm.events import Event, Text
from llm.registry import tools, workflow_steps
from llm.state import WorkflowState
from llm.steps.base import AnyStep, HoldingStep, Step
from llm.workflows import DEFAULT_WORKFLOW, MAX_BYTES, compile_workflow, json_schema
from tests.llm.conftest import Configure
from tests.llm.runs import ran

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("_models", "_tool")

EVERYTHING: dict[str, Any] = {
    "schema": 1,
    "timeout": 30,
    "cache": {"kind": "exact", "ttl": 60},
    "log_content": "none",
    "steps": [
        {"type": "memory"},
        {"type": "retrieve", "k": 2},
        {"type": "prompt", "template": "{question}"},
        {"type": "llm", "model": "fast", "temperature": 0, "stop": ["x"], "output": "draft", "show": False},
        {"type": "parser", "parser": "json", "options": {"schema": {"type": "object"}}, "repair": 1},
        {
            "type": "branch",
            "cases": [
                {
                    "when": {"and": [{"field": "output.kind", "op": "equals", "value": 1}, {"not": {"field": "x", "op": "exists"}}]},
                    "steps": [{"type": "llm"}],
                }
            ],
            "default": [{"type": "transform", "function": "length", "arguments": {"value": {"from": "text"}}}],
        },
        {"type": "parallel", "branches": {"a": [{"type": "llm"}], "b": [{"type": "map", "over": "list", "steps": [{"type": "llm"}]}]}},
        {"type": "tool", "tool": "weather", "arguments": {"city": {"from": "question"}}, "output": "weather"},
        {"type": "agent", "tools": ["weather"], "max_rounds": 2},
        {"type": "workflow", "name": "other", "version": 2, "inputs": {"question": {"from": "text"}}},
    ],
}  # fmt: skip


@pytest.fixture
def _models(configure: Configure) -> None:
    configure(
        default={"PROVIDER": "fake", "MODEL": "fake"},
        fast={"PROVIDER": "openai", "MODEL": "gpt-quick"},
        ROUTES={"both": {"MODELS": ["default", "fast"]}},
    )


@pytest.fixture
def _tool() -> Iterator[None]:
    def create(config: dict[str, Any]) -> Any:
        def weather(city: str, days: int = 1) -> str:
            """The weather in a city."""
            return f"rain in {city}"

        return weather

    tools.add("weather", create)
    yield
    tools.remove("weather")


def fault_of(definition: Any) -> str:
    with pytest.raises(WorkflowInvalid) as caught:
        compile_workflow(definition)
    return caught.value.message


def nested(levels: int) -> list[dict[str, Any]]:
    """A workflow whose innermost step stands `levels` deep."""
    steps: list[dict[str, Any]] = [{"type": "llm"}]
    for _ in range(levels - 1):
        steps = [{"type": "branch", "cases": [{"when": {"field": "text", "op": "exists"}, "steps": steps}]}]
    return steps


class TestWhatIsAccepted:
    def test_every_step_with_its_options(self) -> None:
        compiled = compile_workflow(EVERYTHING)

        assert [step.type for step in compiled.steps] == [step["type"] for step in EVERYTHING["steps"]]
        assert compiled.options["timeout"] == 30
        assert compiled.options["log_content"] == "none"

    def test_a_route_is_a_model(self) -> None:
        compile_workflow([{"type": "llm", "model": "both"}])

    def test_a_model_of_the_workspace_is_known_where_it_is_said_to_be(self) -> None:
        compile_workflow([{"type": "llm", "model": "ours"}], models=["ours"])
        assert fault_of([{"type": "llm", "model": "ours"}]).startswith("steps[0].model: There is no model 'ours'")

    @pytest.mark.parametrize(
        ("step", "alias"),
        [
            ({"config": {"DEFAULT_LLM_PROVIDER": "openai", "DEFAULT_CHAT_MODEL": {"name": "gpt-quick"}}}, "fast"),
            ({"config": {"DEFAULT_LLM_PROVIDER": "fake"}}, "default"),
            ({"provider": "openai", "model": "gpt-quick"}, "fast"),
            ({"provider": "openai"}, "fast"),
            ({"provider": "openai", "model": "fast"}, "fast"),
        ],
    )
    def test_the_peers_ways_to_name_a_model_lead_to_the_alias_that_has_it(self, step: Any, alias: str) -> None:
        compiled = compile_workflow([{"type": "llm", **step}])

        assert compiled.models == (("steps[0].model", alias),)

    def test_the_peers_temperature_is_the_calls_own(self) -> None:
        chat = {"name": "gpt-quick", "temperature": 0.2, "max_tokens": 9}
        config = {"DEFAULT_LLM_PROVIDER": "openai", "DEFAULT_CHAT_MODEL": chat}

        (step,) = compile_workflow([{"type": "llm", "config": config}]).steps

        assert step.options() == {"temperature": 0.2, "max_tokens": 9}  # type: ignore[attr-defined]

    @pytest.mark.parametrize("name", ["StrOutputParser", "JsonOutputParser", "str", "json"])
    def test_the_peers_names_of_parsers(self, name: str) -> None:
        compile_workflow([{"type": "llm"}, {"type": "parser", "parser_type": name, "parser_args": {}}])


class TestFaults:
    @pytest.mark.parametrize(
        ("step", "fault"),
        [
            ({"type": "llm", "temperature": 3}, ".temperature: "),
            ({"type": "llm", "stop": "x"}, ".stop: "),
            ({"type": "llm", "output": "a.b"}, ".output: "),
            ({"type": "llm", "config": {"DEFAULT_CHAT_MODEL": {"api_key": "sk-1"}}}, ".config.DEFAULT_CHAT_MODEL.api_key: "),
            ({"type": "llm", "config": {"KEY": 1}}, ".config.KEY: "),
            ({"type": "llm", "provider": "openai", "model": "gpt-9"}, ".model: no alias in DJANGO_CHAIN['LLM']['MODELS'] has 'gpt-9'"),
            ({"type": "parser", "parser": "pydantic"}, ": 'schema': a JSON schema is needed"),
            ({"type": "parser", "parser": "json", "options": {"schema": {"$ref": "http://127.0.0.1:9/x"}}}, ": it is no JSON schema"),
            ({"type": "parser", "parser": "regex", "options": {"pattern": "(a)\\1"}}, ": the pattern is none that RE2 knows"),
            ({"type": "parser", "repair": 3}, ".repair: "),
            ({"type": "parser", "parser": "str", "parser_type": "json"}, ".parser_type: the same as 'parser'"),
            ({"type": "branch", "cases": []}, ".cases: "),
            ({"type": "branch", "cases": [{"when": {"field": "text", "op": "is"}, "steps": []}]}, ".cases[0].when.op: "),
            ({"type": "branch", "cases": [{"when": {"field": "__class__", "op": "exists"}, "steps": []}]}, ".cases[0].when.field: '__class__' is no name"),
            ({"type": "branch", "cases": [{"when": {"or": [{"field": "text", "op": "matches", "value": "("}]}, "steps": []}]}, ".cases[0].when.or[0]: the pattern"),
            ({"type": "branch", "cases": [{"when": {"not": 3}, "steps": []}]}, ".cases[0].when.not: "),
            ({"type": "parallel", "branches": {"a": [{"type": "prompt", "template": "{a.b}"}]}}, ".branches.a[0].template: 'a.b'"),
            ({"type": "parallel", "branches": {"a": [{"type": "exec"}]}}, ".branches.a[0].type: there is no step 'exec'"),
            ({"type": "parallel", "branches": {"a": [{"type": "llm", "model": "typo"}]}}, ".branches.a[0].model: There is no model"),
            ({"type": "parallel", "branches": {"a": [{"type": "llm", "show": True}]}}, ".branches.a[0].show: "),
            ({"type": "parallel", "branches": {"a": [], "b": 3}}, ".branches.b: "),
            ({"type": "map", "over": "x", "steps": [{"type": "llm"}], "concurrency": 9}, ".concurrency: "),
            ({"type": "transform", "function": "eval"}, ".function: there is no transform 'eval'"),
            ({"type": "transform", "function": "join"}, ".arguments: "),
            ({"type": "transform", "function": "join", "arguments": {"values": {"from": "x[y]"}}}, ".arguments.values: "),
            ({"type": "tool", "tool": "shell"}, ".tool: There is no tool 'shell'"),
            ({"type": "tool", "tool": "weather"}, ".arguments.city: "),
            ({"type": "tool", "tool": "weather", "arguments": {"city": "x", "key": 1}}, ".arguments.key: "),
            ({"type": "agent", "tools": ["weather", "shell"]}, ".tools[1]: There is no tool 'shell'"),
            ({"type": "agent", "tools": []}, ".tools: "),
            ({"type": "workflow"}, ".name: "),
        ],
    )  # fmt: skip
    def test_a_fault_is_named_with_its_path(self, step: Any, fault: str) -> None:
        assert fault_of([{"type": "llm"}, step]).startswith(f"steps[1]{fault}")
        assert fault_of({"steps": [{"type": "llm"}, step]}).startswith(f"steps[1]{fault}")

    @pytest.mark.parametrize(
        ("options", "fault"),
        [
            ({"schema": 2}, "schema: "),
            ({"timeout": 0}, "timeout: "),
            ({"cache": {"kind": "exact", "size": 1}}, "cache.size: "),
            ({"log_content": "some"}, "log_content: "),
            ({"retries": 1}, "retries: "),
        ],
    )
    def test_a_fault_of_the_whole(self, options: Any, fault: str) -> None:
        assert fault_of({"steps": [{"type": "llm"}], **options}).startswith(fault)

    def test_no_key_is_repeated_in_a_fault(self) -> None:
        config = {"DEFAULT_CHAT_MODEL": {"api_key": "sk-secret"}}

        assert "sk-secret" not in fault_of([{"type": "llm", "config": config}])


class TestBounds:
    @pytest.mark.parametrize(
        ("at_the_bound", "beyond", "fault"),
        [
            ([{"type": "llm"}] * 50, [{"type": "llm"}] * 51, "1 to 50 steps, this one has 51"),
            (
                [{"type": "parallel", "branches": {"a": [{"type": "llm"}] * 24, "b": [{"type": "llm"}] * 25}}],
                [{"type": "parallel", "branches": {"a": [{"type": "llm"}] * 25, "b": [{"type": "llm"}] * 25}}],
                "1 to 50 steps, this one has 51",
            ),
            (nested(5), nested(6), "steps may hold steps 5 levels deep"),
            (
                [{"type": "parallel", "branches": {f"b{n}": [{"type": "llm"}] for n in range(8)}}],
                [{"type": "parallel", "branches": {f"b{n}": [{"type": "llm"}] for n in range(9)}}],
                "steps[0].branches: ",
            ),
            (
                [{"type": "prompt", "template": "x" * 90_000}] * 2,
                [{"type": "prompt", "template": "x" * 90_000}] * 3,
                f"may have {MAX_BYTES} bytes",
            ),
        ],
        ids=["steps", "steps inside", "depth", "fan-out", "bytes"],
    )
    def test_hold(self, at_the_bound: Any, beyond: Any, fault: str) -> None:
        compile_workflow(at_the_bound)
        assert fault in fault_of(beyond)

    def test_deep_json_is_refused_before_anything_goes_down_into_it(self) -> None:
        deep: Any = []
        for _ in range(900):
            deep = [deep]

        assert fault_of([{"type": "llm", "config": {"x": deep}}]).startswith("steps: a workflow is nested 64 deep")

    def test_a_schema_whose_references_multiply_is_refused_at_once(self) -> None:
        definitions: dict[str, Any] = {"d0": {"type": "string"}}
        for level in range(1, 40):
            definitions[f"d{level}"] = {"allOf": [{"$ref": f"#/$defs/d{level - 1}"}] * 2}
        schema = {"$defs": definitions, "$ref": "#/$defs/d39"}
        began = perf_counter()

        assert "multiply" in fault_of([{"type": "parser", "parser": "json", "options": {"schema": schema}}])
        assert perf_counter() - began < 1

    def test_a_schema_that_holds_itself_is_fine(self) -> None:
        tree = {"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#"}}}}

        compile_workflow([{"type": "parser", "parser": "json", "options": {"schema": tree}}])


class Twice(HoldingStep):
    type: Literal["twice"] = "twice"
    steps: list[AnyStep]

    def inner(self) -> dict[str, list[Step]]:
        return {".steps": self.steps}

    async def run(self, state: WorkflowState) -> AsyncGenerator[Event, None]:
        for _ in range(2):
            for step in self.steps:
                async for event in step.run(state):
                    yield event


class TestRegisteredSteps:
    def test_a_step_that_holds_steps_is_part_of_the_grammar_from_when_it_is_registered(self) -> None:
        assert "there is no step 'twice'" in fault_of([{"type": "twice", "steps": []}])
        workflow_steps.add("twice", Twice)
        try:
            inside = {"type": "map", "over": "x", "steps": [{"type": "twice", "steps": [{"type": "llm", "top_p": 7}]}]}
            assert fault_of([inside]).startswith("steps[0].steps[0].steps[0].top_p: ")
            assert "Twice" in json_schema()["$defs"]
        finally:
            workflow_steps.remove("twice")
        assert "there is no step 'twice'" in fault_of([{"type": "twice", "steps": []}])

    async def test_a_plain_factory_judges_its_own_options(self) -> None:
        class Greet:
            def __init__(self, config: dict[str, Any]) -> None:
                self.name = config.pop("name")
                if config:
                    raise ValueError(f"unknown: {sorted(config)}")

            async def run(self, state: WorkflowState) -> AsyncGenerator[Event, None]:
                state.text = f"hello {self.name}"
                state.run.shown = True
                yield Text(state.text)

        workflow_steps.add("greet", Greet)
        try:
            assert fault_of([{"type": "greet", "name": "a", "size": 1}]) == "steps[0]: unknown: ['size']."
            assert fault_of([{"type": "greet"}]).startswith("steps[0]: ")
            assert (await ran([{"type": "greet", "name": "you"}])).text == "hello you"
        finally:
            workflow_steps.remove("greet")

    def test_a_factory_that_makes_no_step(self) -> None:
        workflow_steps.add("broken", lambda config: object())
        try:
            assert (
                fault_of([{"type": "broken"}]) == "steps[0]: the factory of 'broken' returned an object without 'run'."
            )
        finally:
            workflow_steps.remove("broken")

    def test_one_class_under_two_names(self) -> None:
        from llm.steps.llm import LlmStep

        workflow_steps.add("ask", LlmStep)
        try:
            (step,) = compile_workflow([{"type": "ask", "model": "fast"}]).steps
            assert (step.type, isinstance(step, LlmStep)) == ("ask", True)
        finally:
            workflow_steps.remove("ask")

    async def test_the_grammar_is_built_once_when_many_ask_at_once(self) -> None:
        workflow_steps.add("twice", Twice)
        try:
            built = await asyncio.gather(*(asyncio.to_thread(grammars.grammar) for _ in range(8)))
        finally:
            workflow_steps.remove("twice")

        assert len({id(one) for one in built}) == 1


class TestTheSchema:
    def test_it_accepts_what_is_accepted(self) -> None:
        schema = jsonschema_rs.validator_for(json_schema())

        for definition in (EVERYTHING, EVERYTHING["steps"], DEFAULT_WORKFLOW):
            assert schema.is_valid(definition)

    @pytest.mark.parametrize(
        "definition",
        [[{"type": "exec"}], [{}], [{"type": "llm", "modle": "x"}], {"schema": 2, "steps": []}, {"steps": 3}, "llm"],
    )
    def test_it_refuses_what_is_refused(self, definition: Any) -> None:
        assert not jsonschema_rs.validator_for(json_schema()).is_valid(definition)

    def test_the_published_one_is_up_to_date(self) -> None:
        # In a process of its own: this one has steps of the tests.
        done = subprocess.run(
            [sys.executable, "manage.py", "workflow_schema", "--check"],
            check=False,
            cwd=ROOT,
            env=os.environ | {"DJANGO_SETTINGS_MODULE": "django_chain.settings"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        published = json.loads((ROOT / "docs/workflow.schema.json").read_text())
        assert published["$id"].endswith(f":{grammars.SCHEMA_VERSION}")


class _Watch(importlib.abc.MetaPathFinder):
    """Sees every module that is looked for."""

    def __init__(self) -> None:
        self.looked_for: list[str] = []

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        self.looked_for.append(fullname)


@contextmanager
def no_import() -> Iterator[None]:
    watch = _Watch()
    sys.meta_path.insert(0, watch)
    try:
        yield
    finally:
        sys.meta_path.remove(watch)
    assert watch.looked_for == []


def check(definition: Any) -> None:
    """Compiles, or has a fault with a path; quickly, and without importing anything."""
    began = perf_counter()
    with no_import():
        try:
            compile_workflow(definition)
        except WorkflowInvalid as error:
            where, colon, what = error.message.partition(": ")
            assert colon and what  # noqa: PT018  compiling is as good
            assert where.startswith(("steps", *OPTIONS)) or isinstance(definition, dict)
    assert perf_counter() - began < 2


OPTIONS = ("schema", "timeout", "cache", "input_validators", "output_validators", "log_content")
NAMES = [
    "type", "model", "template", "messages", "parser", "options", "steps", "branches", "cases", "when", "and", "or", "not",
    "field", "op", "value", "default", "over", "function", "arguments", "from", "tool", "tools", "name", "inputs", "config",
    "lc", "id", "kwargs", "__class__", "schema", "$ref", "pattern", "show", "output",
]  # fmt: skip
WORDS = st.sampled_from([*NAMES, *workflow_steps.names(), "os.system", "equals", "matches", "json", "builtins:eval"])
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS | st.text(max_size=4), inner, max_size=5),
    max_leaves=25,
)


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    """A valid definition with some places of it replaced, removed or doubled."""
    definition = json.loads(json.dumps(EVERYTHING))
    for _ in range(draw(st.integers(1, 3))):
        place = definition
        while isinstance(place, dict | list) and place:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = draw(st.sampled_from(keys))
            inner = place[key]
            if isinstance(inner, dict | list) and inner and draw(st.integers(0, 3)):
                place = inner
                continue
            match draw(st.sampled_from(["replace", "remove", "swap"])):
                case "replace":
                    place[key] = draw(ANY_JSON)
                case "remove":
                    del place[key]
                case _:
                    place[key] = draw(st.sampled_from([[inner], {"type": inner}, {"from": inner}, str(inner)]))
            break
    return definition


class TestAnyJson:
    @pytest.fixture(autouse=True)
    def _everything_is_imported(self, _models: None, _tool: None) -> None:
        compile_workflow(EVERYTHING)

    @settings(max_examples=150, deadline=None)
    @given(ANY_JSON)
    def test_compiles_or_has_a_fault_with_a_path(self, definition: Any) -> None:
        check(definition)
        check([definition])
        check({"steps": definition})

    @settings(max_examples=300, deadline=None)
    @given(mutated())
    def test_a_damaged_definition_compiles_or_has_a_fault_with_a_path(self, definition: Any) -> None:
        check(definition)
