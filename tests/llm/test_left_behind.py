"""What a run holds, a whole prompt and answer, goes with it: not when the garbage collector looks next."""

import gc
import weakref

import pytest

from kernel.ids import new_id
from llm import workflows
from llm.configuration import Configuration
from llm.journal import Unwritten
from llm.state import RunContext, WorkflowInput
from tests.llm.conftest import Configure


class Kept(Unwritten):
    """A journal that a weak reference can look at: the run holds it."""


async def run(definition: list[dict[str, object]], seen: "list[weakref.ref[Kept]]") -> None:
    workspace_id, journal = new_id(), Kept()
    seen.append(weakref.ref(journal))
    context = RunContext(Configuration(workspace_id=workspace_id, generation=0), journal)
    inputs = WorkflowInput(workspace_id, None, None, "hello there")
    async for _ in workflows.stream(definition, inputs, run=context):
        pass


@pytest.fixture
def uncollected():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def test_an_answered_run_leaves_nothing(configure: Configure, uncollected: None) -> None:
    configure(default={"PROVIDER": "fake", "MODEL": "fake"})
    definition: list[dict[str, object]] = [{"type": "prompt"}, {"type": "llm"}]
    seen: list[weakref.ref[Kept]] = []
    await run(definition, seen)  # what is loaded and built once stays
    await run(definition, seen)
    assert seen[1]() is None
