"""The `retrieve` step, with the real embeddings and the sample documents."""

from pathlib import Path
from uuid import UUID

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from kernel import database
from llm.errors import WorkflowInvalid
from llm.events import ModelFinished, ModelStarted, Sources, Step, Text
from llm.state import RunContext
from llm.workflows import WorkflowInput, WorkflowState, compile_workflow
from tests.vectorstore.conftest import document, new_workspace
from vectorstore.manager import VectorStoreManager
from vectorstore.models import Access, Collection

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


class TestQuestionsOfItsOwn:
    """What a step asks a model about the question."""

    @pytest.fixture
    def model(self, settings):
        def answers(*texts: str, **more) -> None:
            options = {"answers": list(texts), **more}
            alias = {"PROVIDER": "fake", "MODEL": "fake", "OPTIONS": options, "MAX_RETRIES": 0}
            settings.DJANGO_CHAIN = settings.DJANGO_CHAIN | {"LLM": {"MODELS": {"default": alias}}}

        return answers

    async def asked(self, workspace_id: UUID, question: str, history=(), **options):
        inputs = WorkflowInput(workspace_id, None, None, question)
        state = WorkflowState.begin(inputs, RunContext.unlogged(workspace_id))
        state.history = list(history)
        (step,) = compile_workflow([{"type": "retrieve", **options}]).steps
        return state, [event async for event in step.run(state)]

    async def test_a_follow_up_question_is_looked_for_as_it_is_meant(self, samples, model):
        said = [HumanMessage("Do you deliver by express?"), AIMessage("Yes, on the next working day.")]
        model("How much does express delivery cost?")
        before, _ = await self.asked(samples, "and how much is it?", said, k=1)
        state, events = await self.asked(samples, "and how much is it?", said, k=1, rewrite=True)
        assert [hit["source"] for hit in before.passages] != ["delivery.txt"]
        assert [hit["source"] for hit in state.passages] == ["delivery.txt"]
        # The call is a call like others; its text is nobody's answer.
        assert [type(event) for event in events][:2] == [ModelStarted, ModelFinished]
        assert not any(isinstance(event, Text) for event in events)
        assert "Do you deliver by express?" in events[0].messages[-1]["content"]
        assert (state.text, state.question) == ("", "and how much is it?")

    async def test_without_a_conversation_nothing_is_rewritten(self, samples, model):
        model("something else entirely")
        _, events = await self.asked(samples, "How much is express delivery?", rewrite=True)
        assert not any(isinstance(event, ModelStarted) for event in events)

    async def test_several_wordings_find_what_one_does_not(self, samples, model):
        model("1. How do I clean the burrs of the grinder?\n- When is support open?\n\n")
        one, _ = await self.asked(samples, "How much is express delivery?", k=3, min_score=0.3)
        several, _ = await self.asked(samples, "How much is express delivery?", k=6, min_score=0.3, queries=3)
        assert {hit["source"] for hit in one.passages} == {"delivery.txt"}
        assert {"delivery.txt", "g50-grinder.md", "support-hours.txt"} <= {hit["source"] for hit in several.passages}
        assert [hit["n"] for hit in several.passages] == list(range(1, len(several.passages) + 1))
        assert len({hit["id"] for hit in several.passages}) == len(several.passages)

    async def test_a_model_that_fails_leaves_the_question_itself(self, samples, model):
        model(error="provider_refused")
        state, _ = await self.asked(samples, "How much is express delivery?", queries=3)
        assert state.passages[0]["source"] == "delivery.txt"

    def test_a_model_without_a_question_for_it_is_a_mistake(self):
        with pytest.raises(WorkflowInvalid, match=r"asked by 'rewrite' and 'queries' only"):
            compile_workflow([{"type": "retrieve", "model": "default"}])


async def test_words_filters_and_neighbours_are_options(samples):
    state, _ = await retrieved(samples, "burrs", mode="text", min_score=None, k=3, neighbours=1)
    assert {hit["source"] for hit in state.passages} == {"g50-grinder.md"}
    text = SAMPLES[0].with_name("g50-grinder.md").read_text()
    assert all(hit["text"] == text[hit["start"] : hit["end"]] for hit in state.passages)
    only, _ = await retrieved(samples, "burrs", min_score=None, where={"eq": {"document.source": "returns.md"}})
    assert {hit["source"] for hit in only.passages} == {"returns.md"}
    with pytest.raises(WorkflowInvalid, match=r"steps\[0\]\.where"):
        compile_workflow([{"type": "retrieve", "where": {"near": {"a": 1}}}])


async def test_nobody_is_given_what_a_restricted_collection_holds(workspace_id):
    await VectorStoreManager(workspace_id).ingest([document("the safe opens with 4711")], collection="secrets")
    await database.run(lambda: Collection.objects.filter(workspace_id=workspace_id).update(access=Access.RESTRICTED))
    state, _ = await retrieved(workspace_id, "how does the safe open", collection="secrets", min_score=None)
    assert state.passages == []
