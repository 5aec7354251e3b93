"""What a definition may cost: patterns, schemas and values that are accepted never hold up the event loop for long."""

import asyncio
import gc
import random
import time
from collections.abc import Awaitable
from typing import Any

import pytest

from kernel.errors import TooLarge
from kernel.ids import new_id
from llm import patterns, schemas, workflows
from llm.errors import WorkflowInvalid
from llm.events import Output
from llm.parsers import JsonParser
from llm.state import WorkflowInput

#: RE2 leaves its fast way for this one: it takes seconds for a hundred thousand characters.
SLOW = r"(?:(?:a|b|c|d?)*[a-v]{90}){8}ZZ"
WORD = "".join(random.Random(7).choices("abcdefghijklmnopqrstuv", k=20_000))


async def longest_stall(work: Awaitable[Any]) -> float:
    """The longest time in which the loop did nothing else, in seconds of its thread.

    What other processes take is not in it, nor is a look at everything that the tests before have left in memory.
    """
    longest, task = 0.0, asyncio.ensure_future(work)
    gc.disable()
    try:
        while not task.done():
            before = time.thread_time()
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - before)
    finally:
        gc.enable()
    await task
    return longest


async def run(definition: Any, **variables: Any) -> Any:
    inputs = WorkflowInput(new_id(), None, None, WORD, variables=variables)
    async for event in workflows.stream(definition, inputs):
        if isinstance(event, Output):
            return event.value
    return None


async def test_a_slow_search_of_a_branch_holds_nobody_up() -> None:
    case = {"when": {"not": {"and": [{"field": "question", "op": "matches", "value": SLOW}]}}, "steps": [_length()]}
    definition = [{"type": "branch", "cases": [case]}]
    workflows.compile_workflow(definition)
    begun = time.monotonic()
    stall = await longest_stall(run(definition))
    assert stall < (time.monotonic() - begun) / 2


async def test_steps_that_wait_for_nothing_let_others_in_between() -> None:
    many = [{"type": "transform", "function": "to_json", "arguments": {"value": {"from": "variables.big"}}}] * 30
    await run(many, big=[])  # what a first run loads and compiles is not of the steps
    begun = time.thread_time()
    stall = await longest_stall(run(many, big=[WORD] * 40))
    assert stall < (time.thread_time() - begun) / 4


def test_a_text_too_long_for_its_pattern_is_refused() -> None:
    with pytest.raises(TooLarge):
        patterns.search(patterns.compile_pattern(SLOW), "a" * 1_000_000)
    assert patterns.search(patterns.compile_pattern(r"[\w.]+@\w+"), "x " * 500_000) is None


@pytest.mark.parametrize("how", ["condition", "schema", "names", "rules"])
def test_a_definition_has_so_many_patterns_and_no_more(how: str) -> None:
    def definition(count: int) -> Any:
        given = [f"(a{{50}}){{50}}{number}" if how in ("schema", "names") else f"a{number}" for number in range(count)]
        match how:
            case "condition":
                leaves = [{"field": "question", "op": "matches", "value": one} for one in given]
                tree = {"or": [{"or": leaves[at : at + 20]} for at in range(0, count, 20)]}
                return [{"type": "branch", "cases": [{"when": tree, "steps": [_length()]}]}]
            case "rules":
                parts = [given[at : at + 60] for at in range(0, count, 60)]
                judges = [{"validator": "rules", "patterns": part} for part in parts]
                return {"steps": [_length()], "input_validators": judges}
            case "schema":
                schema = {"properties": {f"p{number}": {"pattern": one} for number, one in enumerate(given)}}
            case _:
                schema = {"patternProperties": {one: {} for one in given}}
        return [{"type": "llm"}, {"type": "parser", "parser": "json", "options": {"schema": schema}}]

    workflows.compile_workflow(definition(50))
    with pytest.raises(WorkflowInvalid, match="patterns"):
        workflows.compile_workflow(definition(101))


def test_a_bad_pattern_is_named_as_such_within_a_definition() -> None:
    case = {"when": {"field": "question", "op": "matches", "value": "(?=x)"}, "steps": [_length()]}
    with pytest.raises(WorkflowInvalid, match="none that RE2 knows"):
        workflows.compile_workflow([{"type": "branch", "cases": [case]}])


@pytest.mark.parametrize(
    "schema",
    [
        {"items": {"allOf": [{"minimum": -number} for number in range(5_000)]}},
        {"items": {"enum": [{"a": number} for number in range(10_000)]}},
        {"additionalProperties": {"anyOf": [{"type": "string", "minLength": number} for number in range(5_000)]}},
        {"$defs": {"x": {"enum": list(range(20_000))}}, "items": {"$ref": "#/$defs/x"}},
        {"prefixItems": [{"enum": list(range(30_000))}]},
    ],
)
def test_a_large_answer_is_not_held_against_a_large_schema(schema: dict[str, Any]) -> None:
    value = {str(number): 1 for number in range(5_000)} if "additionalProperties" in schema else [1] * 5_000
    begun = time.process_time()
    with pytest.raises(TooLarge):
        schemas.validator(schema).validate(value)
    assert time.process_time() - begun < 1


def test_an_ordinary_answer_is_of_any_size_that_a_model_gives() -> None:
    fields = {f"field_{number}": {"type": "string", "maxLength": 100} for number in range(50)}
    schema = {"type": "array", "items": {"type": "object", "properties": fields, "required": ["field_1"]}}
    row = "{" + ",".join(f'"field_{number}": "x"' for number in range(10)) + "}"
    found = JsonParser({"schema": schema}).parse("[" + ",".join([row] * 200) + "]")
    assert len(found) == 200


def _length() -> dict[str, Any]:
    return {"type": "transform", "function": "length", "arguments": {"value": {"from": "question"}}}
