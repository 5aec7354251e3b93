"""Another order of hits: new before old, unlike before alike, and what a reranker thinks."""

from datetime import timedelta

import pytest
from django.utils import timezone

from django_chain.providers import register_reranker
from kernel import database
from llm.registry import rerankers
from tests.vectorstore.conftest import document
from vectorstore.models import Document

pytestmark = pytest.mark.django_db(transaction=True)
MODES = ("vector", "text", "hybrid")


@pytest.fixture
async def filled(manager):
    texts = {
        "first": "the warranty of the grinder is long",
        "again": "the warranty of the grinder is so long",
        "other": "the warranty of kettles is short and told on paper",
    }
    await manager.ingest([document(text, source=f"{name}.md", title=name) for name, text in texts.items()])
    return manager


async def sources(manager, query, **options):
    return [hit.source for hit in await manager.search(query, **options)]


@pytest.mark.parametrize("mode", MODES)
async def test_what_is_new_comes_before_what_is_old(filled, mode):
    query = "warranty of the grinder"

    def age(source, days):
        Document.objects.filter(source=source).update(dated_at=timezone.now() - timedelta(days=days))

    await database.run(age, "first.md", 3000)
    await database.run(age, "other.md", 3000)
    hits = await filled.search(query, mode=mode, decay=30)
    assert hits[0].source == "again.md"
    plain = {hit.source: hit.score for hit in await filled.search(query, mode=mode)}
    assert hits[0].score == pytest.approx(plain["again.md"], rel=1e-3)
    assert all(hit.score < 1e-6 for hit in hits[1:])


async def test_a_half_life_halves(filled):
    now = timezone.now()
    await database.run(Document.objects.filter(source="other.md").update, dated_at=now)
    (before,) = await filled.search("kettles", mode="text")
    await database.run(Document.objects.filter(source="other.md").update, dated_at=now - timedelta(days=10))
    (after,) = await filled.search("kettles", mode="text", decay=10)
    assert after.score == pytest.approx(before.score / 2, rel=1e-3)


async def test_variety_prefers_what_is_unlike(filled):
    query = "the warranty of the grinder is long"
    assert await sources(filled, query, k=2) == ["first.md", "again.md"]
    assert await sources(filled, query, k=2, mmr=1) == ["first.md", "again.md"]
    assert await sources(filled, query, k=2, mmr=0.2) == ["first.md", "other.md"]


@pytest.mark.parametrize("mode", MODES)
async def test_variety_gives_no_more_and_no_less_than_there_is(filled, mode):
    assert len(await filled.search("warranty", mode=mode, k=50, mmr=0.5)) == 3
    assert await filled.search("zebra", mode="text", mmr=0.5) == []


async def test_the_lexical_reranker_prefers_rare_words_of_the_question(filled):
    hits = await filled.search("warranty kettle", rerank="lexical", k=3)
    assert hits[0].source == "other.md"


async def test_a_reranker_sees_more_than_is_wanted_and_decides(filled):
    class Reversed:
        async def scores(self, query, hits):
            seen.append((query, len(hits)))
            return [-hit.score for hit in hits]

    seen = []
    register_reranker("reversed")(lambda config: Reversed())
    try:
        assert await sources(filled, "the warranty of the grinder is long", k=1, rerank="reversed") == ["other.md"]
    finally:
        rerankers.remove("reversed")
    assert seen == [("the warranty of the grinder is long", 3)]


async def test_a_reranker_that_fails_leaves_the_order(filled, caplog):
    class Broken:
        async def scores(self, query, hits):
            raise ValueError("the secret")

    register_reranker("broken")(lambda config: Broken())
    try:
        assert await sources(filled, "grinder", rerank="broken") == await sources(filled, "grinder")
    finally:
        rerankers.remove("broken")
    assert "action=rerank_failed reranker=broken error=ValueError" in caplog.text
    assert "secret" not in caplog.text


async def test_neighbours_are_one_passage_of_the_document(manager):
    text = "\n\n".join(f"Paragraph {n} speaks about subject{n} again. " * 9 for n in range(9)).strip()
    await manager.ingest([document(text, source="long.md")])
    (hit, *_) = await manager.search("subject4", mode="text", neighbours=1)
    around = hit.neighbours
    assert around.start < hit.start < hit.end < around.end
    assert around.text.split() == text[around.start : around.end].split()
    assert len(around.text) == around.end - around.start
    (alone, *_) = await manager.search("subject4", mode="text")
    assert alone.neighbours is None
