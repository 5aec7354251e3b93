# ruff: noqa: E501  a workflow in a test is a line
"""What the steps of a workflow do, what people see of it, and how it ends when a part fails."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import Any
from uuid import uuid4

import pytest

from kernel.errors import TooLarge
from llm import workflows
from llm.errors import OutputInvalid, ProviderUnavailable, ToolFailed, WorkflowInvalid, WorkflowTimeout
from llm.events import Event, Output, Step, Text
from llm.registry import tools, transforms, workflow_steps
from llm.state import RunContext, WorkflowInput, WorkflowState
from llm.tools import ToolContext
from tests.llm.conftest import Configure
from tests.llm.runs import begin, ran
from tests.support import scripted_provider as script
from tests.support.scripted_provider import ScriptedProvider, until


@pytest.fixture(autouse=True)
def _fakes(configure: Configure) -> None:
    configure(
        default={"PROVIDER": "fake", "MODEL": "fake"},
        one={"PROVIDER": "fake", "MODEL": "fake", "OPTIONS": {"text": "one"}},
        two={"PROVIDER": "fake", "MODEL": "fake", "OPTIONS": {"text": "two"}},
        json={"PROVIDER": "fake", "MODEL": "fake", "OPTIONS": {"text": '{"kind": "refund", "score": 7}'}},
        lines={"PROVIDER": "fake", "MODEL": "fake", "OPTIONS": {"text": "1. red\n2. green\n3. blue"}},
        broken={"PROVIDER": "fake", "MODEL": "fake", "OPTIONS": {"error": "provider_unavailable"}, "MAX_RETRIES": 0},
    )


def says(text: str) -> dict[str, Any]:
    """A step whose value is `text`, without a model."""
    return {"type": "transform", "function": "template", "arguments": {"template": text}}


class TestWhichTextIsShown:
    @pytest.mark.parametrize(
        ("steps", "shown"),
        [
            ([{"type": "llm", "model": "one"}, {"type": "llm", "model": "two"}], "two"),
            ([{"type": "llm", "model": "one", "show": True}, {"type": "llm", "model": "two"}], "onetwo"),
            ([{"type": "llm", "model": "one"}, {"type": "llm", "model": "two", "show": False}], "two"),
            ([{"type": "llm", "model": "one"}, {"type": "parser"}], "one"),
            ([{"type": "llm", "model": "json"}, {"type": "parser", "parser": "json"}], '{"kind": "refund", "score": 7}'),
            (
                [{"type": "llm", "model": "lines", "show": False}, {"type": "parser", "parser": "list"}],
                '["red", "green", "blue"]',
            ),
            ([{"type": "llm", "model": "lines"}, {"type": "parser", "parser": "list", "repair": 1}], '["red", "green", "blue"]'),
            ([{"type": "parallel", "branches": {"a": [{"type": "llm", "model": "one"}]}}], '{"a": "one"}'),
            (
                [{"type": "parallel", "branches": {"a": [{"type": "llm", "model": "one"}]}}, {"type": "llm", "model": "two"}],
                "two",
            ),
            ([says("fixed")], "fixed"),
        ],
    )  # fmt: skip
    async def test_is_that_of_the_step_that_answers(self, steps: Any, shown: str) -> None:
        assert (await ran(steps)).text == shown

    @pytest.mark.parametrize(("tier", "shown"), [("gold", "two"), ("tin", "one")])
    async def test_a_branch_at_the_end_answers_or_what_came_before_does(self, tier: str, shown: str) -> None:
        gold = {"when": {"field": "tier", "op": "equals", "value": "gold"}, "steps": [{"type": "llm", "model": "two"}]}

        came = await ran([{"type": "llm", "model": "one"}, {"type": "branch", "cases": [gold]}], tier=tier)

        assert (came.text, came.value) == (shown, shown)

    async def test_what_is_shown_comes_live_and_is_not_said_again(self, configure: Configure) -> None:
        configure(default={"PROVIDER": "fake", "MODEL": "fake", "OPTIONS": {"text": "a b c d"}})

        came = await ran([{"type": "llm"}])

        assert len([event for event in came.events if isinstance(event, Text)]) == 4
        assert came.value == came.text == "a b c d"

    async def test_a_parser_that_has_the_text_mended_in_a_branch_holds_it_back_too(self) -> None:
        parse = {"type": "parser", "parser": "json", "repair": 1}
        steps = [{"type": "llm", "model": "json"}, {"type": "branch", "cases": [{"when": {"field": "text", "op": "exists"}, "steps": [parse]}]}]  # fmt: skip

        came = await ran(steps)

        assert [event for event in came.events if isinstance(event, Text)] == [Text('{"kind": "refund", "score": 7}')]


class TestBeingTold:
    async def test_each_step_says_how_it_ended_and_those_that_take_time_that_they_began(self) -> None:
        came = await ran([{"type": "prompt"}, {"type": "llm"}, {"type": "parser"}])

        assert came.steps == [
            ("prompt", "finished", "steps[0]"),
            ("llm", "started", "steps[1]"),
            ("llm", "finished", "steps[1]"),
            ("parser", "finished", "steps[2]"),
        ]
        assert came.run.trace == [
            {"path": path, "type": kind, "state": "finished", "ms": came.run.trace[at]["ms"]}
            for at, (kind, path) in enumerate([("prompt", "steps[0]"), ("llm", "steps[1]"), ("parser", "steps[2]")])
        ]

    async def test_a_failure_is_told_of_the_step_and_of_those_around_it(self) -> None:
        came = await ran([{"type": "parallel", "branches": {"a": [{"type": "llm", "model": "broken"}]}}])

        assert isinstance(came.error, ProviderUnavailable)
        assert came.steps[-2:] == [
            ("llm", "failed", "steps[0].branches.a[0]"),
            ("parallel", "failed", "steps[0]"),
        ]
        assert [entry["state"] for entry in came.run.trace] == ["failed", "failed"]

    async def test_a_steps_own_word_of_its_end_is_part_of_ours_and_comes_once(self) -> None:
        class Search:
            def __init__(self, config: dict[str, Any]) -> None: ...

            async def run(self, state: WorkflowState) -> AsyncGenerator[Event, None]:
                yield Step("search", "started")
                yield Step("search", "finished", {"hits": 3})

        workflow_steps.add("search", Search)
        try:
            came = await ran([{"type": "search"}])
        finally:
            workflow_steps.remove("search")

        told = [event for event in came.events if isinstance(event, Step)]
        assert [event.state for event in told] == ["started", "finished"]
        assert (told[1].detail["hits"], told[1].detail["path"]) == (3, "steps[0]")

    async def test_a_run_that_is_stopped_has_an_entry_for_the_step_that_ran(self) -> None:
        run = RunContext.unlogged(uuid4())
        inputs = WorkflowInput(workspace_id=uuid4(), user_id=None, session_id=None, question="?")
        async with aclosing(workflows.stream([{"type": "llm"}], inputs, run=run)) as events:
            async for event in events:
                if isinstance(event, Text):
                    break

        assert [(entry["path"], entry["state"]) for entry in run.trace] == [("steps[0]", "stopped")]


class TestBranch:
    @pytest.mark.parametrize(
        ("when", "holds"),
        [
            ({"field": "question", "op": "equals", "value": "Refund please"}, True),
            ({"field": "question", "op": "not_equals", "value": "Refund please"}, False),
            ({"field": "question", "op": "contains", "value": "Refund"}, True),
            ({"field": "question", "op": "matches", "value": "(?i)\\brefund"}, True),
            ({"field": "question", "op": "matches", "value": "^refund"}, False),
            ({"field": "tags", "op": "contains", "value": "new"}, True),
            ({"field": "tier", "op": "in", "value": ["gold", "silver"]}, True),
            ({"field": "tier", "op": "in", "value": ["tin"]}, False),
            ({"field": "score", "op": "gt", "value": 6}, True),
            ({"field": "score", "op": "gt", "value": 7}, False),
            ({"field": "score", "op": "gte", "value": 7}, True),
            ({"field": "score", "op": "lt", "value": 7.5}, True),
            ({"field": "score", "op": "lte", "value": 6}, False),
            ({"field": "score", "op": "gt", "value": "6"}, False),
            ({"field": "score", "op": "equals", "value": True}, False),
            ({"field": "variables.tags[1]", "op": "equals", "value": "vip"}, True),
            ({"field": "tags[9]", "op": "exists"}, False),
            ({"field": "nobody", "op": "exists", "value": False}, True),
            ({"field": "nobody", "op": "gt", "value": 1}, False),
            ({"field": "nobody", "op": "not_equals", "value": 1}, True),
            ({"and": [{"field": "tier", "op": "exists"}, {"field": "score", "op": "lt", "value": 1}]}, False),
            ({"or": [{"field": "tier", "op": "exists"}, {"field": "score", "op": "lt", "value": 1}]}, True),
            ({"not": {"field": "tier", "op": "exists"}}, False),
        ],
    )
    async def test_goes_by_its_condition(self, when: Any, holds: bool) -> None:
        steps = [{"type": "branch", "cases": [{"when": when, "steps": [says("yes")]}], "default": [says("no")]}]

        came = await ran(steps, "Refund please", tier="gold", score=7, tags=["new", "vip"])

        assert came.text == ("yes" if holds else "no")

    async def test_by_what_a_parser_made_of_an_answer(self) -> None:
        refund = {"when": {"field": "output.kind", "op": "equals", "value": "refund"}, "steps": [{"type": "llm", "model": "one"}]}  # fmt: skip
        steps = [{"type": "llm", "model": "json"}, {"type": "parser", "parser": "json"}, {"type": "branch", "cases": [refund]}]  # fmt: skip

        came = await ran(steps)

        assert came.text == "one"
        assert ("llm", "finished", "steps[2].cases[0].steps[0]") in came.steps

    async def test_the_first_case_that_holds_and_only_that(self) -> None:
        always = {"field": "question", "op": "exists"}
        steps = [{"type": "branch", "cases": [{"when": always, "steps": [says("1")]}, {"when": always, "steps": [says("2")]}]}]  # fmt: skip

        assert (await ran(steps)).text == "1"

    async def test_a_pattern_that_would_take_hours_elsewhere_takes_no_time(self) -> None:
        when = {"field": "question", "op": "matches", "value": "^(a+)+$"}
        steps = [{"type": "branch", "cases": [{"when": when, "steps": []}], "default": [says("no")]}]

        async with asyncio.timeout(2):
            assert (await ran(steps, "a" * 5000 + "b")).text == "no"


class TestParallel:
    async def test_each_branch_leaves_its_value_and_nothing_else(self) -> None:
        branches = {
            "a": [{"type": "llm", "model": "one", "output": "inner"}],
            "b": [{"type": "llm", "model": "json"}, {"type": "parser", "parser": "json"}],
        }
        after = {"type": "prompt", "template": "{a} {b}"}

        came = await ran([{"type": "parallel", "branches": branches}, after, {"type": "llm"}])

        assert came.asked[-1] == 'one {"kind": "refund", "score": 7}'
        lost = await ran([{"type": "parallel", "branches": branches}, {"type": "prompt", "template": "{inner}"}])
        assert lost.error is not None

    async def test_the_branches_run_at_once(
        self, provider: ScriptedProvider, scripted_alias: Callable[..., None]
    ) -> None:
        gate = script.Gate()
        names = [f"side-{index}" for index in range(3)]
        for name in names:
            provider.script(name, script.wait(gate), script.text(name), script.ok())
        branches = {f"b{at}": [{"type": "prompt", "template": f"[[{name}]]"}, {"type": "llm"}] for at, name in enumerate(names)}  # fmt: skip

        running = asyncio.create_task(ran([{"type": "parallel", "branches": branches}]))
        for name in names:
            await asyncio.to_thread(provider.wait_for, name, timeout=20)
        gate.release()

        assert (await running).value == {"b0": "side-0", "b1": "side-1", "b2": "side-2"}

    async def test_if_one_fails_the_others_connections_are_closed(
        self, provider: ScriptedProvider, scripted_alias: Callable[..., None]
    ) -> None:
        provider.script("slow", script.text("a"), script.hang())
        gate = script.Gate()
        provider.script("bad", script.wait(gate), script.status(400))
        branches = {name: [{"type": "prompt", "template": f"[[{name}]]"}, {"type": "llm"}] for name in ("slow", "bad")}

        running = asyncio.create_task(ran([{"type": "parallel", "branches": branches}]))
        slow = await asyncio.to_thread(provider.wait_for, "slow", timeout=20)
        await asyncio.to_thread(provider.wait_for, "bad", timeout=20)
        gate.release()
        came = await running

        assert came.error is not None
        assert came.error.code == "provider_refused"  # type: ignore[attr-defined]
        assert await until(slow.disconnected, 2)

    async def test_stopping_the_run_closes_all_their_connections(
        self, provider: ScriptedProvider, scripted_alias: Callable[..., None]
    ) -> None:
        names = ("left", "right")
        for name in names:
            provider.script(name, script.text("a"), script.hang())
        branches = {name: [{"type": "prompt", "template": f"[[{name}]]"}, {"type": "llm"}] for name in names}

        running = asyncio.create_task(ran([{"type": "parallel", "branches": branches}]))
        exchanges = [await asyncio.to_thread(provider.wait_for, name, timeout=20) for name in names]
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

        assert [await until(exchange.disconnected, 2) for exchange in exchanges] == [True, True]
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "workflow-side-by-side"]


class TestMap:
    LINES = [{"type": "llm", "model": "lines"}, {"type": "parser", "parser": "list", "output": "colours"}]

    async def test_the_same_steps_for_each_item_in_the_order_of_the_list(self) -> None:
        each = [{"type": "prompt", "template": "{item} {item_index}"}, {"type": "llm"}]

        came = await ran([*self.LINES, {"type": "map", "over": "variables.colours", "steps": each, "output": "all"}])

        assert came.value == ["You said: red 0", "You said: green 1", "You said: blue 2"]
        assert ("llm", "finished", "steps[2].items[1].steps[1]") in came.steps

    async def test_only_so_many_run_at_once(self) -> None:
        at_once = most = 0

        class Count:
            def __init__(self, config: dict[str, Any]) -> None: ...

            async def run(self, state: WorkflowState) -> AsyncGenerator[Event, None]:
                nonlocal at_once, most
                at_once += 1
                most = max(most, at_once)
                for _ in range(3):
                    await asyncio.sleep(0)
                at_once -= 1
                yield Step("note", "finished")

        workflow_steps.add("count", Count)
        try:
            came = await ran(
                [{"type": "map", "over": "list", "steps": [{"type": "count"}], "concurrency": 3}], list=[*range(20)]
            )
        finally:
            workflow_steps.remove("count")

        assert came.error is None
        assert most == 3

    async def test_too_many_items_are_refused(self) -> None:
        step = {"type": "map", "over": "list", "steps": [says("x")]}

        assert (await ran([step], list=[0] * 50)).value == ["x"] * 50
        came = await ran([step], list=[0] * 51)
        assert isinstance(came.error, TooLarge)
        assert "steps[0].over" in str(came.error)

    async def test_what_is_no_list_is_named(self) -> None:
        came = await ran([{"type": "map", "over": "question", "steps": [says("x")]}])

        assert isinstance(came.error, WorkflowInvalid)
        assert str(came.error) == "steps[0].over: 'question' is no list when this step runs."

    async def test_if_an_item_fails_so_does_the_step(self) -> None:
        came = await ran(
            [*self.LINES, {"type": "map", "over": "colours", "steps": [{"type": "llm", "model": "broken"}]}]
        )

        assert isinstance(came.error, ProviderUnavailable)


class TestTransform:
    @pytest.mark.parametrize(
        ("function", "arguments", "value"),
        [
            ("join", {"values": {"from": "list"}}, 'a\n2\n{"b": 1}'),
            ("join", {"values": {"from": "list"}, "separator": ", "}, 'a, 2, {"b": 1}'),
            ("pick", {"value": {"from": "list[2]"}, "key": "b"}, 1),
            ("pick", {"value": {"from": "list"}, "key": -1}, {"b": 1}),
            ("first", {"values": {"from": "list"}}, "a"),
            ("length", {"value": {"from": "list"}}, 3),
            ("to_json", {"value": {"from": "list"}}, '["a", 2, {"b": 1}]'),
            ("from_json", {"text": "[1, null]"}, [1, None]),
            ("template", {"template": "{x}, {{{x}}}", "x": {"from": "list[0]"}}, "a, {a}"),
        ],
    )
    async def test_the_built_in_ones(self, function: str, arguments: Any, value: Any) -> None:
        step = {"type": "transform", "function": function, "arguments": arguments}

        assert (await ran([step], list=["a", 2, {"b": 1}])).value == value

    @pytest.mark.parametrize(
        ("function", "arguments"),
        [
            ("from_json", {"text": '{"a": '}),
            ("from_json", {"text": "NaN"}),
            ("from_json", {"text": "[" * 100_000}),
            ("first", {"values": []}),
            ("pick", {"value": {}, "key": "a"}),
            ("length", {"value": 3}),
        ],
    )
    async def test_what_it_cant_use_is_a_typed_failure_that_quotes_nothing(self, function: str, arguments: Any) -> None:
        came = await ran([{"type": "transform", "function": function, "arguments": arguments}])

        assert isinstance(came.error, OutputInvalid)
        assert str(came.error) == f"steps[0]: the transform {function!r} can't use its arguments."

    async def test_a_value_that_is_not_there_is_named(self) -> None:
        came = await ran(
            [{"type": "transform", "function": "length", "arguments": {"value": {"from": "nothing.here"}}}]
        )

        assert str(came.error) == "steps[0]: there is no value 'nothing.here' when this step runs."

    async def test_values_that_double_with_each_step_end_at_a_bound(self) -> None:
        def double(value: Any) -> Any:
            return [value, value]

        transforms.add("double", double)
        step = {"type": "transform", "function": "double", "arguments": {"value": {"from": "x"}}, "output": "x"}
        try:
            async with asyncio.timeout(10):
                came = await ran([step] * 40, x="y")
        finally:
            transforms.remove("double")

        assert isinstance(came.error, TooLarge)

    async def test_one_of_ones_own_may_be_async_and_may_make_no_more_than_json(self) -> None:
        async def shout(text: str) -> Any:
            return text.upper() if text != "object" else object()

        transforms.add("shout", shout)
        step = {"type": "transform", "function": "shout", "arguments": {"text": {"from": "question"}}}
        try:
            assert (await ran([step], "hey")).text == "HEY"
            assert isinstance((await ran([step], "object")).error, OutputInvalid)
        finally:
            transforms.remove("shout")


class TestTool:
    @pytest.fixture(autouse=True)
    def _tools(self) -> Iterator[None]:
        def create(config: dict[str, Any]) -> Any:
            async def look_up(key: str, *, context: ToolContext, times: int = 1) -> Any:
                """Look a thing up."""
                if key == "hang":
                    await asyncio.sleep(3600)
                if key == "fail":
                    raise RuntimeError("sk-secret")
                return {"found": key * times, "workspace": str(context.workspace_id), "prefix": config.get("prefix")}

            return look_up

        tools.add("look_up", create)
        yield
        tools.remove("look_up")

    async def test_its_result_goes_where_the_step_says_with_the_runs_own_workspace(self) -> None:
        step = {"type": "tool", "tool": "look_up", "arguments": {"key": {"from": "question"}, "times": 2}, "options": {"prefix": "p"}}  # fmt: skip

        came = await ran([step], "ab")

        assert came.value == {"found": "abab", "workspace": str(came.run.configuration.workspace_id), "prefix": "p"}

    async def test_the_context_is_not_for_a_workflow_to_give(self) -> None:
        with pytest.raises(WorkflowInvalid, match=r"steps\[0\]\.arguments\.context"):
            workflows.compile_workflow([{"type": "tool", "tool": "look_up", "arguments": {"key": "a", "context": {}}}])

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"key": "fail"}, "The tool 'look_up' failed."),
            ({"key": "hang"}, "The tool 'look_up' took longer than 0.05 s."),
            ({"key": 3}, "The tool 'look_up' was called with arguments that it does not take."),
        ],
    )
    async def test_its_failures_are_typed_and_quote_nothing(self, arguments: Any, message: str) -> None:
        came = await ran([{"type": "tool", "tool": "look_up", "arguments": arguments, "timeout": 0.05}])

        assert isinstance(came.error, ToolFailed)
        assert str(came.error) == message

    async def test_a_blocking_one_holds_nobody_up(self) -> None:
        import threading

        seen = []

        def create(config: dict[str, Any]) -> Any:
            def where() -> str:
                """Say where it runs."""
                seen.append(threading.current_thread())
                return "here"

            return where

        tools.add("where", create)
        try:
            assert (await ran([{"type": "tool", "tool": "where"}])).text == "here"
        finally:
            tools.remove("where")
        assert seen != [threading.main_thread()]


class TestTime:
    @pytest.mark.parametrize("inside", ["hang", "parallel"])
    async def test_a_step_that_hangs_ends_with_the_workflows_time(self, inside: str) -> None:
        closed = asyncio.Event()

        class Hang:
            def __init__(self, config: dict[str, Any]) -> None: ...

            async def run(self, state: WorkflowState) -> AsyncGenerator[Event, None]:
                try:
                    await asyncio.Event().wait()
                    yield Text("never")
                finally:
                    closed.set()

        workflow_steps.add("hang", Hang)
        steps = (
            [{"type": "hang"}] if inside == "hang" else [{"type": "parallel", "branches": {"a": [{"type": "hang"}]}}]
        )
        try:
            async with asyncio.timeout(5):
                came = await ran({"steps": steps, "timeout": 0.05})
        finally:
            workflow_steps.remove("hang")

        assert isinstance(came.error, WorkflowTimeout)
        assert closed.is_set()
        assert came.run.trace[0]["state"] == "stopped"

    async def test_the_operators_bound_holds_too(self, configure: Configure) -> None:
        slow = {"PROVIDER": "fake", "MODEL": "fake", "OPTIONS": {"first_token_delay": 3600}}
        configure(default=slow, WORKFLOW_TIMEOUT=0.05)

        assert isinstance((await ran({"steps": [{"type": "llm"}], "timeout": 500})).error, WorkflowTimeout)

    async def test_a_consumer_that_takes_its_time_is_told_and_not_cancelled(self) -> None:
        inputs = WorkflowInput(workspace_id=uuid4(), user_id=None, session_id=None, question="a b c")
        events = workflows.stream({"steps": [{"type": "llm"}], "timeout": 0.02}, inputs)
        await anext(events)
        await asyncio.sleep(0.1)  # the consumer's own work: the time is over meanwhile

        with pytest.raises(WorkflowTimeout):
            await anext(events)
        assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]

    async def test_a_stop_from_outside_is_a_stop(self) -> None:
        started = asyncio.Event()

        class Hang:
            def __init__(self, config: dict[str, Any]) -> None: ...

            async def run(self, state: WorkflowState) -> AsyncGenerator[Event, None]:
                started.set()
                await asyncio.Event().wait()
                yield Text("never")

        workflow_steps.add("hang", Hang)
        try:
            running = asyncio.create_task(ran([{"type": "hang"}]))
            await started.wait()
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
        finally:
            workflow_steps.remove("hang")


async def test_a_calls_own_options_go_to_the_provider(
    provider: ScriptedProvider, scripted_alias: Callable[..., None]
) -> None:
    provider.script("options", script.text("x"), script.ok())

    await ran([{"type": "llm", "temperature": 0.25, "stop": ["END"], "seed": 7}], "[[options]]")

    body = provider.wait_for("options").body
    assert (body["temperature"], body["stop"], body["seed"]) == (0.25, ["END"], 7)


async def test_text_kept_under_a_name_is_there_for_a_later_prompt() -> None:
    steps = [
        {"type": "llm", "model": "one", "output": "draft"},
        {"type": "prompt", "template": "Better: {draft}"},
        {"type": "llm"},
    ]

    came = await ran(steps)

    assert came.text == "You said: Better: one"


async def test_a_run_ends_with_its_output_and_its_cache_option_is_the_workflows(live_database: None) -> None:
    came = begin()
    await ran({"steps": [{"type": "llm", "model": "one"}], "cache": {"kind": "exact", "ttl": 5}}, into=came)

    assert came.events[-1] == Output("one")
    assert came.run.cache is not None
    assert came.run.cache["ttl"] == 5
