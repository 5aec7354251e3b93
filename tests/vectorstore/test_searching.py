"""Vectors, words and both: what is found, in which order, and by whom, on real PostgreSQL."""

import random
from uuid import uuid4

import pytest
from django.contrib.auth import get_user_model
from django.db import connection, transaction

from accounts.models import Membership, Role
from kernel import database
from kernel.errors import Invalid, NotFound
from tests.vectorstore.conftest import CountingEmbedder, document, new_workspace
from vectorstore import searching
from vectorstore.candidates import Narrowing
from vectorstore.manager import VectorStoreManager
from vectorstore.models import Access, Collection, CollectionMember
from vectorstore.scope import Scope
from vectorstore.values import SearchRequest

pytestmark = pytest.mark.django_db(transaction=True)
MODES = ("vector", "text", "hybrid")
TEXTS = {
    "red": ("the apple is red", {"year": 2019, "tags": ["fruit"]}),
    "sky": ("the sky is blue today", {"year": 2021, "tags": ["air", "colour"]}),
    "sea": ("the sea is deep and blue", {"year": 2023, "tags": ["water"]}),
}

#: So many that reading them all is no way to find a few.
MANY_CHUNKS = """
    INSERT INTO vectorstore_chunk (id, created_at, updated_at, workspace_id, collection_id, document_id, position, text,
        start, "end", embedded_hash, metadata)
    SELECT gen_random_uuid(), created_at, updated_at, workspace_id, collection_id, document_id, n, text, start, "end",
        embedded_hash, metadata
    FROM vectorstore_chunk, generate_series(10, 3000) AS n WHERE position = 0
"""


@pytest.fixture
async def filled(manager):
    await manager.ingest(
        [
            document(text, source=f"{name}.md", title=f"About {name}", metadata=metadata)
            for name, (text, metadata) in TEXTS.items()
        ]
    )
    return manager


async def sources(manager, query, **options):
    return [hit.source for hit in await manager.search(query, **options)]


class TestModes:
    @pytest.mark.parametrize("mode", MODES)
    async def test_what_answers_comes_first_with_all_that_is_known_of_it(self, filled, mode):
        best, *_ = await filled.search("deep sea", mode=mode)
        assert (best.text, best.title, best.source) == ("the sea is deep and blue", "About sea", "sea.md")
        assert (best.start, best.end, best.position) == (0, len(best.text), 0)
        assert best.collection == (await filled.collection()).name
        assert best.collection_id == (await filled.collection()).id
        assert best.metadata["tags"] == ["water"]
        assert best.dated_at is not None

    @pytest.mark.parametrize("mode", MODES)
    async def test_k_is_the_most_and_the_order_is_by_score(self, filled, mode):
        hits = await filled.search("the blue sky and the red apple and the deep sea", mode=mode, k=2)
        assert len(hits) == 2
        assert hits[0].score >= hits[1].score

    async def test_words_are_found_in_another_form_and_in_the_title(self, filled):
        assert await sources(filled, "apples", mode="text") == ["red.md"]
        assert await sources(filled, "about", mode="text") == []  # a stop word
        await filled.ingest([document("a text of its own", source="x.md", title="Warranty")])
        assert await sources(filled, "warranties", mode="text") == ["x.md"]

    async def test_chunks_with_every_word_leave_out_those_with_some(self, filled):
        assert await sources(filled, "blue sky", mode="text") == ["sky.md"]

    async def test_some_words_are_enough_when_nothing_has_all(self, filled):
        assert set(await sources(filled, "blue zebra", mode="text")) == {"sky.md", "sea.md"}

    @pytest.mark.parametrize("query", ["blue -deep", "blue zebra -deep", 'blue zebra -"deep and"'])
    async def test_what_is_not_wanted_is_left_out(self, filled, query):
        found = await sources(filled, query, mode="text")
        assert found == ["sky.md"]

    async def test_quotation_marks_ask_for_a_phrase(self, filled):
        assert await sources(filled, '"blue today"', mode="text") == ["sky.md"]

    async def test_hybrid_finds_by_words_what_its_vector_does_not_tell(self, filled):
        hits = await filled.search("apple", mode="hybrid", k=3)
        assert hits[0].source == "red.md"
        assert hits[0].score == pytest.approx(1)
        assert all(hit.similarity is not None for hit in hits)
        assert len(hits) == 3

    async def test_a_text_search_embeds_nothing(self, filled, embedder):
        await filled.search("blue", mode="text")
        assert embedder.asked == []

    async def test_the_least_score(self, filled):
        for mode in MODES:
            hits = await filled.search("blue sky", mode=mode, k=50)
            least = (hits[0].similarity if mode == "hybrid" else hits[0].score) - 1e-6
            assert await sources(filled, "blue sky", mode=mode, k=50, min_score=least) == ["sky.md"]
        assert await filled.search("zebra", mode="hybrid", min_score=0.99) == []

    async def test_in_hybrid_every_word_is_enough_whatever_the_similarity(self, filled):
        assert await sources(filled, "apples", mode="hybrid", min_score=0.999) == ["red.md"]

    async def test_a_common_word_is_weighed_for_a_bounded_number_of_chunks(self, filled, monkeypatch):
        monkeypatch.setattr("vectorstore.candidates.MOST_MATCHES", 1)
        assert len(await filled.search("blue", mode="text", k=50)) == 1


class TestAsking:
    @pytest.mark.parametrize(
        "options",
        [
            {"k": 0},
            {"k": 51},
            {"mode": "magic"},
            {"neighbours": 11},
            {"mmr": 1.5},
            {"decay": 0},
            {"rerank": "nobody"},
            {"documents": [uuid4()] * 101},
            {"where": {"like": {"a": "b"}}},
            {"colour": "blue"},
        ],
    )
    async def test_what_cannot_be_asked_is_said(self, filled, options):
        with pytest.raises(Invalid):
            await filled.search("blue", **options)

    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize(
        "query",
        [
            *(
                "",
                "  ",
                "\x00",
                "?!",
                "\ud800",
                "'; DROP TABLE x; --",
                "🙂" * 1000,
                "the and of",
                "-",
                "--",
                "- -a",
                "-blue",
            ),
            *(
                "& | ! ( ) :* <->",
                "a & !b",
                '"',
                '""',
                '-"',
                "\\",
                "'\\'",
                "%s %(a)s {0}",
                "a:*b",
                "x" * 2000,
                "blue or",
                "or",
            ),
            "word " * 400,
        ],
    )
    async def test_any_question_has_an_answer(self, filled, mode, query):
        hits = await filled.search(query, mode=mode)
        assert all(-1 <= hit.score <= 1 for hit in hits)

    @pytest.mark.parametrize("seed", range(3))
    async def test_noise_is_never_an_error(self, filled, seed):
        chosen = random.Random(seed)
        for _ in range(60):
            query = "".join(chosen.choices("ab \"'\\-|&!():*<>%\x00\n{}🙂é\ud800or", k=chosen.randrange(40)))
            for mode in ("text", "hybrid"):
                await filled.search(query, mode=mode)

    async def test_a_request_says_the_same_as_keywords(self, filled):
        request = SearchRequest(query="blue sky", mode="hybrid", k=2)
        assert await filled.search(request) == await filled.search("blue sky", mode="hybrid", k=2)

    async def test_a_collection_is_named_or_given_by_its_id(self, filled):
        await filled.ingest([document("the sky of the other", source="other.md")], collection="other")
        other = await filled.collection("other")
        for named in ("other", other.id):
            assert await sources(filled, "sky", collection=named) == ["other.md"]

    async def test_a_missing_collection_has_no_hits_or_is_said_to_be_missing(self, filled):
        for missing in ("missing", uuid4()):
            assert await filled.search("sky", collection=missing) == []
            with pytest.raises(NotFound):
                await filled.search("sky", collection=missing, must_exist=True)


FILTERS = [
    ({"eq": {"year": 2021}}, {"sky"}),
    ({"in": {"year": [2019, 2023]}}, {"red", "sea"}),
    ({"range": {"year": {"gte": 2021}}}, {"sky", "sea"}),
    ({"contains": {"tags": "water"}}, {"sea"}),
    ({"not": {"contains": {"tags": "water"}}}, {"red", "sky"}),
    ({"and": [{"range": {"year": {"gt": 2019}}}, {"contains": {"tags": "air"}}]}, {"sky"}),
    ({"or": [{"eq": {"year": 2019}}, {"eq": {"document.source": "sea.md"}}]}, {"red", "sea"}),
    ({"eq": {"document.title": "About sky"}}, {"sky"}),
    ({"contains": {"document.source": "s"}}, {"sky", "sea"}),
    ({"eq": {"nothing": 1}}, set()),
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("where", "wanted"), FILTERS)
async def test_filters(filled, mode, where, wanted):
    hits = await filled.search("apple or sky or sea", mode=mode, where=where, k=50)
    assert {hit.source for hit in hits} == {f"{name}.md" for name in wanted}


@pytest.mark.parametrize("mode", MODES)
async def test_some_documents_alone(filled, mode):
    (sea,) = await filled.search("deep sea", k=1)
    assert await sources(filled, "apple or sky or sea", mode=mode, documents=[sea.document_id]) == ["sea.md"]
    assert await sources(filled, "apple or sky or sea", mode=mode, documents=[uuid4()]) == []


@pytest.mark.parametrize("mode", MODES)
class TestIsolation:
    CANARY = "the canary sings in the mine"

    @pytest.fixture
    async def stranger(self, filled):
        manager = VectorStoreManager(await new_workspace(), embedder=CountingEmbedder())
        await manager.ingest([document(self.CANARY, source="secret.md")])
        return manager

    async def test_the_canary_never_surfaces_in_another_workspace(self, filled, stranger, mode):
        assert [hit.text for hit in await stranger.search(self.CANARY, mode=mode)] == [self.CANARY]
        theirs = await stranger.collection()
        for named in (None, theirs.id, theirs.name):
            hits = await filled.search(self.CANARY, mode=mode, k=50, collection=named)
            assert all(hit.text != self.CANARY for hit in hits)

    async def test_the_wall_alone_holds(self, filled, stranger, workspace_id, mode):
        """The statement names the stranger's workspace throughout; only the connection is ours."""
        theirs = await stranger.collection()
        vector = await CountingEmbedder().query(self.CANARY)
        request = SearchRequest(query=self.CANARY, mode=mode)
        near = searching.nearest(theirs, request, Narrowing(), vector)
        plan = searching.Plan(collection=theirs, request=request, narrowing=Narrowing(), near=near, vector=vector)
        trusted = Scope(theirs.workspace_id)
        assert [hit.text for hit in await trusted.run(searching.find, plan)] == [self.CANARY]
        assert await Scope(workspace_id).run(lambda _: searching.find(trusted, plan)) == []

    @pytest.mark.parametrize(
        ("reader", "access", "finds"),
        [
            ("nobody", Access.WORKSPACE, True),
            ("member", Access.WORKSPACE, True),
            ("nobody", Access.RESTRICTED, False),
            ("member", Access.RESTRICTED, False),
            ("reader", Access.RESTRICTED, True),
            ("admin", Access.RESTRICTED, True),
            ("stranger", Access.RESTRICTED, False),
        ],
    )
    async def test_who_finds_what_a_collection_holds(self, filled, workspace_id, mode, reader, access, finds):
        await filled.ingest([document(self.CANARY, source="secret.md")], collection="vault")
        vault = await filled.collection("vault")

        def prepare():
            Collection.objects.filter(id=vault.id).update(access=access)
            if reader == "nobody":
                return None
            user = get_user_model().objects.create_user(f"{reader}-{uuid4()}")
            if reader != "stranger":
                role = Role.ADMIN if reader == "admin" else Role.MEMBER
                Membership.objects.create(workspace_id=workspace_id, user=user, role=role)
            if reader == "reader":
                CollectionMember.objects.create(collection_id=vault.id, user=user)
            return user.id

        theirs = VectorStoreManager.for_reader(workspace_id, await database.run(prepare))
        theirs._given = CountingEmbedder()
        for named in ("vault", vault.id):
            hits = await theirs.search(self.CANARY, mode=mode, collection=named)
            assert [hit.text for hit in hits] == ([self.CANARY] if finds else [])


class TestCost:
    @pytest.mark.parametrize("mode", MODES)
    async def test_a_search_looks_up_what_it_found_and_reads_no_other_chunk(self, filled, mode):
        """Row security keeps PostgreSQL from the key where that is computed: all chunks were read for each search."""
        request = SearchRequest(query="deep sea", mode=mode)
        plan = await filled._plan(await filled.collection(), request, searching.narrowing(request))

        def explained(scope: Scope) -> str:
            text, values = searching.statement(scope, plan)
            with connection.cursor() as cursor:
                cursor.execute(MANY_CHUNKS)
                cursor.execute("ANALYZE vectorstore_chunk")
                cursor.execute(f"EXPLAIN {text}", values)
                transaction.set_rollback(True)
                return "\n".join(line for (line,) in cursor.fetchall())

        lines = (await filled.scope.run(explained)).splitlines()
        (lookup,) = [line for line in lines if "on vectorstore_chunk c" in line]
        assert "vectorstore_chunk_pkey" in lookup
