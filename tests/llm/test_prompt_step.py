"""The `prompt` step with prompts of the database: which version answers, and that a change is seen."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from langchain_core.messages import HumanMessage

from accounts.access import workspace_for
from accounts.models import Workspace
from kernel import caches, database
from llm import configuration, versions
from llm.errors import PromptInvalid, WorkflowInvalid
from llm.journal import Unwritten
from llm.models import Prompt
from llm.state import RunContext, WorkflowInput, WorkflowState
from llm.steps.prompt import PromptStep
from llm.workflows import compile_workflow
from tests.conftest import Person, make_person


@pytest.fixture
def workspace(person: Person) -> Workspace:
    return workspace_for(person.caller)


async def make(workspace: Workspace, template: str, *, activate: bool = True, **content: Any) -> Prompt:
    stored = {"langchain_type": "PromptTemplate", "template": template}
    return await database.run(
        lambda: versions.create(
            Prompt, workspace.pk, "support", user_id=None, activate=activate, prompt_template=stored, **content
        )
    )


async def prompted(
    workspace: Workspace, *, session_id: UUID | None = None, variables: dict[str, Any] | None = None, **options: Any
) -> WorkflowState:
    step = PromptStep.model_validate({"type": "prompt", **options})
    inputs = WorkflowInput(workspace.pk, None, session_id, "why?", variables=variables or {})
    state = WorkflowState.begin(inputs, RunContext(await configuration.current(workspace.pk), Unwritten()))
    assert [event async for event in step.run(state)] == []
    return state


def said(state: WorkflowState) -> str:
    assert state.prompt is not None
    return f"v{state.prompt.version}: {state.messages[0].text}"


async def test_the_active_version_answers_as_soon_as_it_is_activated(workspace: Workspace) -> None:
    first = await make(workspace, "one {question}")
    assert said(await prompted(workspace, name="support")) == "v1: one why?"
    await make(workspace, "two {question}")
    assert said(await prompted(workspace, name="support")) == "v2: two why?"
    await database.run(first.activate)
    assert said(await prompted(workspace, name="support")) == "v1: one why?"


async def test_a_pinned_version_stays(workspace: Workspace) -> None:
    first = await make(workspace, "one {question}")
    await make(workspace, "two {question}")
    state = await prompted(workspace, name="support", version=1)

    assert said(state) == "v1: one why?"
    assert state.prompt is not None
    assert state.prompt.id == first.pk


async def test_a_conversation_keeps_its_version_of_a_split(workspace: Workspace) -> None:
    await make(workspace, "one")
    await make(workspace, "two")
    await database.run(lambda: versions.split(workspace.pk, "support", {1: 50, 2: 50}, user_id=None))
    sessions = [uuid4() for _ in range(20)]
    once = [said(await prompted(workspace, session_id=each, name="support")) for each in sessions]

    assert set(once) == {"v1: one", "v2: two"}
    assert [said(await prompted(workspace, session_id=each, name="support")) for each in sessions] == once
    assert {said(await prompted(workspace, name="support")) for _ in range(20)} == {"v1: one", "v2: two"}
    assert said(await prompted(workspace, session_id=sessions[0], name="support", version=2)) == "v2: two"


async def test_variables_of_the_run_fill_it_in(workspace: Workspace) -> None:
    await make(workspace, "{tone} {style} {question}", input_variables=["tone"], optional_variables=["style"])

    state = await prompted(workspace, name="support", variables={"tone": "{style}", "more": object()})
    assert state.messages == [HumanMessage("{style}  why?")]
    with pytest.raises(PromptInvalid, match=r"prompt 'support' can't be filled in: the variable 'tone' has no value"):
        await prompted(workspace, name="support")


async def test_a_missing_prompt_is_named(workspace: Workspace) -> None:
    with pytest.raises(PromptInvalid, match="no active version of the prompt 'support'"):
        await prompted(workspace, name="support")
    other = await database.run(lambda: workspace_for(make_person().caller))
    await make(other, "theirs")
    with pytest.raises(PromptInvalid, match="no version 1 of the prompt 'support'"):
        await prompted(workspace, name="support", version=1)


async def test_a_stored_prompt_is_parsed_once(workspace: Workspace) -> None:
    await make(workspace, "{question}")
    await prompted(workspace, name="support")
    before = caches.figures()["prompt_templates"]
    await prompted(workspace, name="support")
    after = caches.figures()["prompt_templates"]

    assert (after.hits - before.hits, after.misses - before.misses) == (1, 0)


async def test_an_inline_prompt_is_no_stored_one(workspace: Workspace) -> None:
    state = await prompted(workspace, template="Say {question}")

    assert (state.prompt, state.messages) == (None, [HumanMessage("Say why?")])


async def test_an_inline_prompt_may_be_mustache_with_optional_variables(workspace: Workspace) -> None:
    options = {"template": "{{question}}{{#tone}} ({{tone}}){{/tone}}", "template_format": "mustache"}

    assert (await prompted(workspace, **options, optional_variables=["tone"])).messages == [HumanMessage("why?")]
    state = await prompted(workspace, **options, variables={"tone": "<kind>"})
    assert state.messages == [HumanMessage("why? (<kind>)")]


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"name": "a", "template": "x"}, "'name' or 'template', not both"),
        ({"name": "a", "messages": [{"role": "user", "content": "x"}]}, "'name' or 'messages'"),
        ({"version": 2}, "'name'"),
        ({"name": ""}, r"steps\[0\].*name"),
        ({"name": "a", "version": 0}, r"steps\[0\].*version"),
        ({"name": "a", "input_variables": ["x"]}, "'input_variables' is said by the stored prompt"),
        ({"template": "{{> x}}", "template_format": "mustache"}, r"steps\[0\].*template.*partial"),
        ({"template": "{tone}", "input_variables": ["mood"]}, "'mood' is declared"),
    ],
)
def test_a_faulty_step_is_refused_with_its_fault(options: dict[str, Any], fault: str) -> None:
    with pytest.raises(WorkflowInvalid, match=fault):
        compile_workflow([{"type": "prompt", **options}])
