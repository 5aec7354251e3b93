"""The `workflow` step: one of the workspace's workflows as a part of another."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from accounts.access import workspace_for
from accounts.models import Workspace
from kernel import database
from kernel.ids import new_id
from llm import configuration, versions
from llm.errors import WorkflowInvalid, WorkflowTimeout
from llm.events import Event, Text
from llm.journal import RunJournal, RunRef, Unwritten
from llm.models import Workflow
from llm.registry import workflow_steps
from llm.state import RunContext, WorkflowState
from tests.conftest import Person
from tests.llm.conftest import Configure
from tests.llm.runs import Ran, begin, ran

Store = Callable[..., Any]


@pytest.fixture(autouse=True)
def _fakes(configure: Configure) -> None:
    configure(
        default={"PROVIDER": "fake", "MODEL": "fake"},
        one={"PROVIDER": "fake", "MODEL": "fake", "OPTIONS": {"text": "one"}},
        json={"PROVIDER": "fake", "MODEL": "fake", "OPTIONS": {"text": '{"n": 1}'}},
    )


@pytest.fixture
async def workspace(person: Person) -> Workspace:
    return await database.run(workspace_for, person.caller)


@pytest.fixture
def store(workspace: Workspace) -> Store:
    """Store a workflow's next version: `await store("name", steps)`."""

    async def store(name: str, steps: Any, *, activate: bool = True) -> Workflow:
        return await database.run(
            lambda: versions.create(
                Workflow, workspace.pk, name, user_id=None, activate=activate, workflow_definition=steps
            )
        )

    return store


@pytest.fixture
def call(workspace: Workspace) -> Callable[..., Any]:
    """Run a definition in the workspace."""

    async def call(steps: Any, question: str = "why?", **variables: Any) -> Ran:
        holding = await configuration.current(workspace.pk)
        return await ran(steps, question, into=begin(RunContext(holding, Unwritten())), **variables)

    return call


async def test_its_answer_is_shown_where_the_step_answers(store: Store, call: Callable[..., Any]) -> None:
    await store("inner", [{"type": "llm", "model": "one"}, {"type": "parser"}])

    came = await call([{"type": "workflow", "name": "inner"}])

    assert (came.text, came.value) == ("one", "one")
    assert ("llm", "finished", "steps[0].steps[0]") in came.steps
    assert came.steps[-1] == ("workflow", "finished", "steps[0]")


async def test_it_gets_its_inputs_and_leaves_its_value_and_nothing_else(store: Store, call: Callable[..., Any]) -> None:
    await store("inner", [{"type": "prompt", "template": "{tone}: {question}"}, {"type": "llm", "output": "mine"}])
    step = {
        "type": "workflow",
        "name": "inner",
        "inputs": {"question": {"from": "x"}, "tone": "kind"},
        "output": "theirs",
    }

    came = await call([step, {"type": "prompt", "template": "{theirs}"}, {"type": "llm"}], x="hello")

    assert came.asked == ["kind: hello", "You said: kind: hello"]
    lost = await call([step, {"type": "prompt", "template": "{mine}"}], x="hello")
    assert "'mine' has no value" in str(lost.error)


@pytest.mark.parametrize(("outer", "inner", "kept"), [("full", "none", "none"), ("redacted", "full", "redacted")])
async def test_the_stricter_log_policy_holds_for_the_whole_run(
    store: Store, person: Person, workspace: Workspace, outer: str, inner: str, kept: str
) -> None:
    await store("inner", {"steps": [{"type": "llm", "model": "one"}], "log_content": inner})
    journal = RunJournal(RunRef(run_id=new_id(), workspace_id=workspace.pk, user_id=person.user.id))
    holding = await configuration.current(workspace.pk)
    journal.under(holding, workflow_id=None)

    came = await ran(
        {"steps": [{"type": "workflow", "name": "inner"}], "log_content": outer},
        into=begin(RunContext(holding, journal)),
    )

    assert came.value == "one"
    assert journal.run.log_content == kept


async def test_a_version_or_the_active_one(store: Store, call: Callable[..., Any]) -> None:
    await store("inner", [{"type": "llm", "model": "one"}])
    await store("inner", [{"type": "llm", "model": "json"}, {"type": "parser", "parser": "json"}])

    assert (await call([{"type": "workflow", "name": "inner"}])).value == {"n": 1}
    assert (await call([{"type": "workflow", "name": "inner", "version": 1}])).value == "one"


async def test_one_that_is_not_there_is_named(store: Store, call: Callable[..., Any]) -> None:
    await store("inner", [{"type": "llm"}], activate=False)

    inactive = await call([{"type": "workflow", "name": "inner"}])
    missing = await call([{"type": "workflow", "name": "inner", "version": 9}])

    assert str(inactive.error) == "steps[0].name: of the workflow 'inner' there is no active one."
    assert str(missing.error) == "steps[0].name: of the workflow 'inner' there is no version 9."


async def test_anothers_is_not_there(store: Store, make: Callable[[], Person]) -> None:
    await store("inner", [{"type": "llm"}])
    stranger = await database.run(lambda: workspace_for(make().caller))
    run = RunContext(await configuration.current(stranger.pk), Unwritten())

    came = await ran([{"type": "workflow", "name": "inner"}], into=begin(run))

    assert isinstance(came.error, WorkflowInvalid)


async def test_one_that_calls_itself_is_a_typed_failure(store: Store, call: Callable[..., Any]) -> None:
    await store("a", [{"type": "parallel", "branches": {"x": [{"type": "workflow", "name": "b"}]}}])
    await store("b", [{"type": "workflow", "name": "a"}])

    came = await call([{"type": "workflow", "name": "a"}])

    assert isinstance(came.error, WorkflowInvalid)
    assert "the workflow calls itself (a → b → a)" in str(came.error)


async def test_five_deep_and_no_more(store: Store, call: Callable[..., Any]) -> None:
    await store("w0", [{"type": "llm", "model": "one"}])
    for level in range(1, 6):
        await store(f"w{level}", [{"type": "workflow", "name": f"w{level - 1}"}])

    assert (await call([{"type": "workflow", "name": "w4"}])).text == "one"
    assert "5 deep, no more" in str((await call([{"type": "workflow", "name": "w5"}])).error)


async def test_its_own_time_holds_too(store: Store, call: Callable[..., Any]) -> None:
    class Hang:
        def __init__(self, config: dict[str, Any]) -> None: ...

        async def run(self, state: WorkflowState) -> AsyncGenerator[Event, None]:
            await asyncio.Event().wait()
            yield Text("never")

    workflow_steps.add("hang", Hang)
    try:
        await store("inner", {"steps": [{"type": "hang"}], "timeout": 0.05})
        async with asyncio.timeout(5):
            came = await call([{"type": "workflow", "name": "inner"}])
    finally:
        workflow_steps.remove("hang")

    assert isinstance(came.error, WorkflowTimeout)
    assert came.steps[-1] == ("workflow", "failed", "steps[0]")


async def test_its_models_are_checked_against_the_workspaces(store: Store) -> None:
    with pytest.raises(WorkflowInvalid, match=r"steps\[0\]\.model: There is no model 'ours'"):
        await store("inner", [{"type": "llm", "model": "ours"}])
