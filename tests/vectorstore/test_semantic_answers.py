"""The cache of near questions: what is near enough, and what must be equal beside it."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.utils import timezone

from kernel import caches, database
from llm import exact_cache
from llm.answer_cache import Answer, CacheOptions, Request, Target, opened
from tests.vectorstore.conftest import document, new_workspace
from vectorstore.manager import VectorStoreManager
from vectorstore.models import SemanticAnswer

pytestmark = pytest.mark.usefixtures("live_database")

MODEL = Target(alias="default", provider="openai", model="m", parameters={}, fingerprint="f")
QUESTION = "how long is the warranty of the coffee machine"
NEAR = "how long is the warranty of the coffee machine please"
FAR = "who paints the garden fence in autumn"


@pytest.fixture(autouse=True)
def _words_have_vectors(settings: Any) -> None:
    settings.DJANGO_CHAIN = settings.DJANGO_CHAIN | {
        "EMBEDDINGS": {"PROVIDER": "fake", "MODEL": "words", "DIMENSION": 64}
    }
    SemanticAnswer.objects.all().delete()


def request(workspace_id: UUID, question: str = QUESTION, *, template: str = "{}", **more: Any) -> Request:
    told = {"role": "human", "content": template.format(question), "name": None}
    messages = ({"role": "system", "content": "Answer briefly.", "name": None}, told)
    values = {"workflow_id": None, "prompt_id": None, "targets": (MODEL,), "parameters": {}, "messages": messages}
    return Request(workspace_id=workspace_id, question=question, **values | more)


def answer(text: str = "24 months", target: Target = MODEL) -> Answer:
    return Answer(target=target, text=text, input_tokens=9, output_tokens=3)


def cache(threshold: float = 0.85, ttl: int = 60) -> Any:
    return opened(CacheOptions(kind="semantic", threshold=threshold, ttl=ttl).model_dump())


async def text_for(asked: Request, **options: Any) -> str | None:
    found = await cache(**options).find(asked)
    return None if found is None else found.text


@pytest.fixture
async def workspace_id() -> UUID:
    return await new_workspace()


async def test_a_near_question_is_given_the_answer_and_a_far_one_is_not(workspace_id):
    await cache().keep(request(workspace_id), answer())
    assert await cache().find(request(workspace_id)) == answer()
    assert await text_for(request(workspace_id, NEAR)) == "24 months"
    assert await text_for(request(workspace_id, FAR)) is None


async def test_the_threshold_says_what_is_near(workspace_id):
    await cache().keep(request(workspace_id), answer())
    assert await text_for(request(workspace_id, NEAR), threshold=0.999) is None
    assert await text_for(request(workspace_id), threshold=0.999) == "24 months"


async def test_the_nearest_of_several_is_given(workspace_id):
    await cache().keep(request(workspace_id), answer("of the machine"))
    await cache().keep(request(workspace_id, QUESTION.replace("machine", "grinder")), answer("of the grinder"))
    asked = request(workspace_id, NEAR.replace("machine", "grinder"))
    assert await text_for(asked, threshold=0.5) == "of the grinder"


async def test_another_workspace_is_never_given_it(workspace_id):
    await cache().keep(request(workspace_id), answer())
    assert await text_for(request(await new_workspace())) is None


async def test_a_number_in_the_question_must_be_the_same(workspace_id):
    await cache().keep(request(workspace_id, QUESTION + " X200"), answer())
    assert await text_for(request(workspace_id, QUESTION + " X300"), threshold=0.5) is None
    assert await text_for(request(workspace_id, NEAR + " X200"), threshold=0.5) == "24 months"


@pytest.mark.parametrize(
    ("asked", "kept"),
    [("warranty not for the X200", "warranty for the X200"), ("warranty of the X\u00b2", "warranty of the X\u00b3")],
)
async def test_a_question_that_is_turned_into_its_opposite_or_another_number_is_another_one(workspace_id, asked, kept):
    await cache().keep(request(workspace_id, kept), answer())
    assert await text_for(request(workspace_id, kept)) == "24 months"
    assert await text_for(request(workspace_id, asked), threshold=0.0) is None


async def test_the_passages_must_be_the_same(workspace_id):
    grounded = "The warranty is {} months. [1]\n\nQuestion: {{}}"
    await cache().keep(request(workspace_id, template=grounded.format(24)), answer())
    assert await text_for(request(workspace_id, NEAR, template=grounded.format(24))) == "24 months"
    assert await text_for(request(workspace_id, NEAR, template=grounded.format(12))) is None
    assert await text_for(request(workspace_id, NEAR)) is None


async def test_a_passage_that_holds_the_question_is_not_taken_for_it(workspace_id):
    await cache(threshold=0).keep(request(workspace_id, "five", template="price: five\n{}"), answer())
    assert await text_for(request(workspace_id, "six", template="price: six\n{}"), threshold=0) is None
    assert await text_for(request(workspace_id, "six", template="price: five\n{}"), threshold=0) is not None


async def test_a_prompt_without_the_question_is_only_equal_to_itself(workspace_id):
    await cache(threshold=0).keep(request(workspace_id, "sing it to me", template="Sing."), answer())
    assert await text_for(request(workspace_id, "sing it to him", template="Sing."), threshold=0) == "24 months"
    assert await text_for(request(workspace_id, "sing it to him", template="Dance."), threshold=0) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"workflow_id": UUID(int=1)},
        {"prompt_id": UUID(int=1)},
        {"parameters": {"temperature": 0}},
        {"targets": (replace(MODEL, model="n"),)},
        {"targets": (replace(MODEL, provider="p"),)},
        {"targets": (replace(MODEL, fingerprint="g"),)},
        {"messages": ({"role": "human", "content": "before"}, {"role": "human", "content": QUESTION, "name": None})},
    ],
    ids=lambda changed: next(iter(changed)),
)
async def test_all_beside_the_question_must_be_the_same(workspace_id, changed):
    await cache().keep(request(workspace_id), answer())
    assert await text_for(request(workspace_id, **changed)) is None


async def test_a_routes_answer_is_found_under_the_model_that_gave_it(workspace_id):
    second = replace(MODEL, alias="second", model="n")
    await cache().keep(request(workspace_id, targets=(MODEL, second)), answer(target=second))
    found = await cache().find(request(workspace_id, targets=(MODEL, second)))
    assert found is not None
    assert found.target == second
    assert await cache().find(request(workspace_id)) is None


async def test_another_embedding_model_finds_nothing_and_does_not_fail(workspace_id, settings):
    await cache().keep(request(workspace_id), answer())
    for other in ({"MODEL": "other", "DIMENSION": 64}, {"MODEL": "words", "DIMENSION": 32}):
        settings.DJANGO_CHAIN = settings.DJANGO_CHAIN | {"EMBEDDINGS": {"PROVIDER": "fake", **other}}
        assert await text_for(request(workspace_id), threshold=0) is None


async def test_what_has_expired_is_not_given_and_goes(workspace_id):
    await cache().keep(request(workspace_id), answer())
    await database.run(lambda: SemanticAnswer.objects.update(expires_at=timezone.now() - timedelta(seconds=1)))
    assert await text_for(request(workspace_id)) is None
    assert await database.run(exact_cache.prune, SemanticAnswer) == 1
    assert not await database.run(SemanticAnswer.objects.exists)


async def test_asked_twice_at_once_it_is_kept_once_with_its_documents_and_its_end(workspace_id):
    document_id = await some_document(workspace_id)
    asked = request(workspace_id, document_ids=(document_id,))
    await asyncio.gather(*(cache(ttl=60).keep(asked, answer()) for _ in range(3)))
    row = await database.run(SemanticAnswer.objects.get)
    assert row.document_ids == [document_id]
    assert 50 < (row.expires_at - timezone.now()).total_seconds() <= 60


async def test_an_answer_from_a_document_that_was_deleted_meanwhile_is_not_kept(workspace_id):
    document_id = await some_document(workspace_id)
    asked = request(workspace_id, document_ids=(document_id,))
    await VectorStoreManager(workspace_id).delete(document_id)
    await cache().keep(asked, answer())
    assert not await database.run(SemanticAnswer.objects.exists)


async def test_deleting_a_document_takes_the_answers_that_were_made_from_it(workspace_id):
    document_id = await some_document(workspace_id)
    await cache().keep(request(workspace_id, document_ids=(document_id,)), answer())
    await VectorStoreManager(workspace_id).delete(document_id)
    assert not await database.run(SemanticAnswer.objects.exists)


async def some_document(workspace_id):
    (made,) = await VectorStoreManager(workspace_id).ingest([document("It lasts 24 months.")])
    return made.document_id


async def test_a_question_without_a_word_finds_nothing(workspace_id):
    await cache().keep(request(workspace_id, "?!"), answer())
    assert await text_for(request(workspace_id, "?!")) is None


async def test_hits_and_misses_are_counted(workspace_id):
    before = caches.figures()["semantic_answers"]
    await cache().find(request(workspace_id))
    await cache().keep(request(workspace_id), answer())
    await cache().find(request(workspace_id, NEAR))
    after = caches.figures()["semantic_answers"]
    assert (after.hits - before.hits, after.misses - before.misses) == (1, 1)
