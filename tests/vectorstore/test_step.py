"""The `retrieve` step, with the real embeddings and the sample documents."""

from pathlib import Path
from uuid import UUID

import pytest

from llm.errors import WorkflowInvalid
from llm.events import Sources, Step
from llm.state import RunContext
from llm.workflows import WorkflowInput, WorkflowState, compile_workflow
from tests.vectorstore.conftest import document, new_workspace
from vectorstore.manager import VectorStoreManager

pytestmark = pytest.mark.django_db(transaction=True)
SAMPLES = sorted((Path(__file__).parents[2] / "samples").iterdir())


@pytest.fixture
async def samples(workspace_id: UUID) -> UUID:
    documents = [document(path.read_text(), source=path.name) for path in SAMPLES]
    await VectorStoreManager(workspace_id).ingest(documents)
    return workspace_id


async def retrieved(workspace_id: UUID, question: str, **options):
    state = WorkflowState.begin(WorkflowInput(workspace_id, None, None, question), RunContext.unlogged(workspace_id))
    (step,) = compile_workflow([{"type": "retrieve", **options}]).steps
    return state, [event async for event in step.run(state)]


async def test_the_passage_that_answers_is_the_first_source(samples):
    state, events = await retrieved(samples, "How long is the warranty of the X200?", k=2)
    sources, finished = events
    assert finished == Step("retrieve", "finished", {"hits": 2})
    assert isinstance(sources, Sources)
    assert list(sources.hits) == state.passages
    first = sources.hits[0]
    assert "24 months" in first["text"]
    assert (first["n"], first["source"], first["title"]) == (1, "x200-warranty.md", "X200 coffee machine: warranty")
    assert set(first) == {"id", "document_id", "title", "source", "text", "score", "start", "end", "n"}
    text = SAMPLES[0].with_name("x200-warranty.md").read_text()
    assert text[first["start"] : first["end"]] == first["text"]


@pytest.mark.parametrize(
    ("question", "source"),
    [
        ("How long is the warranty of the G50?", "g50-grinder.md"),
        ("how do I clean the burrs", "g50-grinder.md"),
        ("How often should I descale the machine?", "x200-manual.md"),
        ("When is support open?", "support-hours.txt"),
        ("How much is express delivery?", "delivery.txt"),
        ("Can I return a product?", "returns.md"),
    ],
)
async def test_other_questions_find_their_documents(samples, question, source):
    state, _ = await retrieved(samples, question)
    assert state.passages[0]["source"] == source


@pytest.mark.parametrize(
    "chat", ["hello", "Hi!", "thank you, that helps", "tell me a joke", "what is the capital of France?", "bye", "ok"]
)
async def test_a_greeting_brings_no_sources(samples, chat):
    state, events = await retrieved(samples, chat)
    assert state.passages == []
    assert events == [Step("retrieve", "finished", {"hits": 0})]


async def test_min_score_is_an_option(samples):
    state, _ = await retrieved(samples, "hello", min_score=-1.0, k=50)
    assert len(state.passages) > 10
    assert [hit["n"] for hit in state.passages] == list(range(1, len(state.passages) + 1))


async def test_a_workspace_without_documents_has_no_hits_and_no_error(samples):
    state, events = await retrieved(await new_workspace(), "How long is the warranty of the X200?")
    assert state.passages == []
    assert [event.state for event in events] == ["finished"]


@pytest.mark.parametrize(("options", "named"), [({"k": 51}, "k"), ({"k": 0}, "k"), ({"min_score": 2}, "min_score")])
def test_a_wrong_option_is_named(options, named):
    with pytest.raises(WorkflowInvalid, match=rf"steps\[0\]\.{named}"):
        compile_workflow([{"type": "retrieve", **options}])
