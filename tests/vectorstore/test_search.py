"""Search: nearest first, bounded, and never past the walls of a workspace."""

import pytest
from django.db import ProgrammingError

from kernel import database
from kernel.errors import Invalid
from tests.vectorstore.conftest import CountingEmbedder, document, new_workspace
from vectorstore import rows
from vectorstore.backends.pgvector import PgVector
from vectorstore.manager import VectorStoreManager
from vectorstore.models import Chunk, Collection, Document, VectorSet
from vectorstore.scope import Scope

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
async def filled(manager):
    texts = {"red": "the apple is red", "sky": "the sky is blue today", "sea": "the sea is deep"}
    await manager.ingest([document(text, source=f"{name}.md", title=name) for name, text in texts.items()])
    return manager


async def test_the_nearest_passage_comes_first_with_its_score(filled):
    hits = await filled.search("is the sky blue", k=2)
    assert hits[0].title == "sky"
    assert len(hits) == 2
    assert 1 >= hits[0].score > hits[1].score > 0


async def test_what_scores_too_low_is_left_out(filled):
    assert [hit.title for hit in await filled.search("the sea is deep", min_score=0.7)] == ["sea"]
    assert await filled.search("zebra", min_score=0.5) == []


@pytest.mark.parametrize("k", [0, -1, 51])
async def test_k_is_bounded(filled, k):
    with pytest.raises(Invalid, match="from 1 to 50"):
        await filled.search("sky", k=k)


async def test_a_workspace_without_documents_has_no_hits_and_embeds_nothing():
    embedder = CountingEmbedder()
    manager = VectorStoreManager(await new_workspace(), embedder=embedder)
    assert await manager.search("anything") == []
    assert embedder.asked == []


@pytest.mark.parametrize("query", ["", "  ", "\x00", "?!", "\ud800", "'; DROP TABLE x; --", "🙂" * 1000])
async def test_any_question_has_an_answer(filled, query):
    assert all(hit.score <= 1 for hit in await filled.search(query))


async def test_a_passage_without_words_is_never_found(filled):
    await filled.ingest([document("!!! ??? …", source="marks.md", title="!")])
    assert all(hit.source != "marks.md" for hit in await filled.search("sky", k=50))


async def test_collections_are_searched_apart(filled):
    await filled.ingest([document("the sky is blue today too", source="other.md")], collection="other")
    assert {hit.source for hit in await filled.search("sky", k=50)} == {"red.md", "sky.md", "sea.md"}
    assert {hit.source for hit in await filled.search("sky", k=50, collection="other")} == {"other.md"}
    assert await filled.search("sky", collection="missing") == []


async def test_a_hit_stands_at_its_place_in_the_document(filled):
    text = "# Long\n\n" + "\n\n".join(f"Paragraph {n} speaks about subject{n} again. " * 9 for n in range(9))
    await filled.ingest([document(text, source="long.md")])
    hits = await filled.search("subject7", k=50)
    found = [hit for hit in hits if hit.source == "long.md"]
    assert len(found) > 5
    assert all(text[hit.start : hit.end] == hit.text for hit in found)
    assert "subject7" in hits[0].text


class TestIsolation:
    CANARY = "the canary sings in the mine"

    @pytest.fixture
    async def stranger(self, filled):
        """Another workspace, whose secret is exactly what is searched for."""
        manager = VectorStoreManager(await new_workspace(), embedder=CountingEmbedder())
        (self.secret,) = await manager.ingest([document(self.CANARY, source="secret.md")])
        return manager

    async def test_the_canary_of_one_workspace_never_surfaces_in_another(self, filled, stranger):
        assert [hit.text for hit in await stranger.search(self.CANARY)] == [self.CANARY]
        for k in (1, 50):
            assert all(hit.text != self.CANARY for hit in await filled.search(self.CANARY, k=k))

    async def test_the_same_document_in_two_workspaces_stays_two(self, filled, stranger):
        (copy,) = await filled.ingest([document(self.CANARY, source="secret.md")])
        assert copy.outcome == "added"
        await filled.delete(copy.document_id)
        assert [hit.text for hit in await stranger.search(self.CANARY)] == [self.CANARY]

    async def test_a_foreign_document_cannot_be_deleted(self, filled, stranger):
        assert not await filled.delete(self.secret.document_id)
        assert len(await stranger.search(self.CANARY)) == 1

    async def test_a_foreign_collection_cannot_be_searched_or_written(self, filled, stranger, workspace_id):
        theirs = await stranger.collection()
        vector = await CountingEmbedder().query(self.CANARY)
        assert await PgVector(workspace_id).search(theirs.active, vector, k=50) == []
        assert (
            await Scope(workspace_id).run(rows.known, theirs, document(self.CANARY, source="secret.md"), "0" * 64)
            is None
        )

    async def test_the_database_itself_keeps_a_scope_to_its_workspace(self, filled, stranger, workspace_id):
        def everything(scope):
            return [model.objects.count() for model in (Collection, VectorSet, Document, Chunk)], list(
                Chunk.objects.filter(text=self.CANARY)
            )

        seen, secrets = await Scope(workspace_id).run(everything)
        assert seen[:2] == [1, 1]
        assert secrets == []
        assert await database.run(Chunk.objects.filter(text=self.CANARY).exists)

    async def test_a_write_into_another_workspace_is_refused_by_the_database(self, filled, stranger, workspace_id):
        theirs = await stranger.collection()

        def smuggle(scope):
            Document.objects.create(
                workspace_id=theirs.workspace_id, collection_id=theirs.id, source="smuggled", title="smuggled"
            )

        with pytest.raises(ProgrammingError, match="row-level security"):
            await Scope(workspace_id).run(smuggle)
