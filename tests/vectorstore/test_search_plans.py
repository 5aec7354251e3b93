"""A search takes one statement: what it takes for granted is true when it is asked, and behind the wall."""

from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any
from uuid import UUID

import psycopg
import pytest
from django.contrib.auth import get_user_model
from django.db import DataError, connection

from accounts.models import Membership, Role
from kernel import database
from kernel.errors import NotFound
from llm import aliases
from llm.embeddings.fake import FakeEmbeddings
from llm.errors import ProviderUnavailable
from llm.registry import embedding_providers
from tests.support.queries import counted
from tests.vectorstore.conftest import CountingEmbedder, document, new_workspace
from tests.vectorstore.large import EMBEDDINGS, LARGE, Placed, configure, fill
from vectorstore import indexing, reembedding, rows, searching, words
from vectorstore.manager import VectorStoreManager
from vectorstore.models import Access, Collection, VectorSet
from vectorstore.scope import Scope
from vectorstore.values import SearchRequest, Space

pytestmark = pytest.mark.django_db(transaction=True)
MODES = ("vector", "text", "hybrid")


async def found(manager: VectorStoreManager, query: str = "the deep sea", **options: Any) -> list[str]:
    return [hit.text for hit in await manager.search(query, **options)]


@pytest.mark.parametrize("mode", MODES)
class TestWhatChanged:
    """Since the last search, perhaps by another process: nothing here tells this one."""

    @pytest.fixture
    async def searched(self, manager: VectorStoreManager, mode: str) -> VectorStoreManager:
        await manager.ingest([document("the sea is deep")], collection="here")
        for _ in range(2):
            assert await found(manager, collection="here", mode=mode) == ["the sea is deep"]
        return manager

    async def test_a_deleted_collection(self, searched, mode):
        await database.run(Collection.objects.filter(name="here").delete)
        assert await found(searched, collection="here", mode=mode) == []
        with pytest.raises(NotFound):
            await searched.search("the deep sea", collection="here", mode=mode, must_exist=True)

    async def test_another_collection_of_the_name(self, searched, mode):
        await database.run(Collection.objects.filter(name="here").update, name="there")
        await searched.ingest([document("a deep hole")], collection="here")
        assert await found(searched, collection="here", mode=mode) == ["a deep hole"]
        assert await found(searched, collection="there", mode=mode) == ["the sea is deep"]

    async def test_a_new_name_of_one_that_is_asked_by_its_id(self, searched, mode):
        known = (await searched.collection("here")).id
        assert await found(searched, collection=known, mode=mode) == ["the sea is deep"]
        await database.run(Collection.objects.filter(id=known).update, name="there")
        (hit,) = await searched.search("the deep sea", collection=known, mode=mode)
        assert hit.collection == "there"

    async def test_the_right_to_read_it(self, searched, workspace_id, mode):
        reader = await database.run(_member, workspace_id)
        theirs = VectorStoreManager.for_reader(workspace_id, reader)
        theirs._given = CountingEmbedder()
        assert await found(theirs, collection="here", mode=mode) == ["the sea is deep"]
        await database.run(Collection.objects.filter(name="here").update, access=Access.RESTRICTED)
        assert await found(theirs, collection="here", mode=mode) == []
        with pytest.raises(NotFound):
            await theirs.search("the deep sea", collection="here", mode=mode, must_exist=True)
        # Whoever asks next: it is not remembered for somebody else.
        assert await found(searched, collection="here", mode=mode) == ["the sea is deep"]

    async def test_its_documents(self, searched, mode):
        await searched.ingest([document("the deep sea", source="b.md")], collection="here")
        assert "the deep sea" in await found(searched, collection="here", mode=mode)
        (known,) = [
            hit for hit in await searched.search("the deep sea", collection="here", mode=mode) if hit.source == "b.md"
        ]
        await searched.delete(known.document_id)
        assert await found(searched, collection="here", mode=mode) == ["the sea is deep"]

    async def test_its_embedding_model(self, settings, mode):
        settings.DJANGO_CHAIN = settings.DJANGO_CHAIN | {"EMBEDDINGS": EMBEDDINGS | {"MODEL": "words"}}
        manager = VectorStoreManager(await new_workspace())
        await manager.ingest([document("the sea is deep")])
        assert await found(manager, mode=mode) == ["the sea is deep"]
        before = await manager.collection()
        set_id = await manager.scope.run(
            reembedding.begin, before.id, Space(model="fake:wide", dimension=96), rows.BESIDE
        )
        assert (await reembedding.work(set_id))[0] == "switched"
        # Its vectors go after a while, and nothing is compared with them any more.
        await database.run(VectorSet.objects.filter(id=before.active.id).delete)
        assert await found(manager, mode=mode) == ["the sea is deep"]
        await aliases.close()


class Leaving(FakeEmbeddings):
    """A provider that can be left."""

    gone = False

    def embed_query(self, text: str) -> list[float]:
        if self.gone:
            raise ConnectionError
        return super().embed_query(text)


@pytest.fixture
async def leaving(settings: Any) -> AsyncIterator[VectorStoreManager]:
    embedding_providers.add("leaving", lambda config: Leaving(config["dimension"]))
    ours = EMBEDDINGS | {"PROVIDER": "leaving", "MODEL": "words", "DIMENSION": 64}
    settings.DJANGO_CHAIN = settings.DJANGO_CHAIN | {"EMBEDDINGS": ours}
    manager = VectorStoreManager(await new_workspace())
    await manager.ingest([document("the sea is deep")])
    assert await found(manager) == ["the sea is deep"]
    yield manager
    Leaving.gone = False
    embedding_providers.remove("leaving")
    await aliases.close()


async def test_the_provider_that_a_collection_left_may_fail(leaving):
    before = await leaving.collection()
    set_id = await leaving.scope.run(reembedding.begin, before.id, Space(model="fake:wide", dimension=96), rows.BESIDE)
    assert (await reembedding.work(set_id))[0] == "switched"
    Leaving.gone = True
    assert await found(leaving, "how deep is the sea?") == ["the sea is deep"]


async def test_the_provider_that_a_collection_has_fails(leaving):
    Leaving.gone = True
    for _ in range(2):
        with pytest.raises(ProviderUnavailable):
            await found(leaving, "how deep is the sea?")


async def test_questions_to_a_collection_that_is_gone_are_embedded_once_at_most(manager, embedder):
    await manager.ingest([document("the sea is deep")])
    assert await found(manager) == ["the sea is deep"]
    await database.run(Collection.objects.filter(workspace_id=manager.scope.workspace_id).delete)
    before = len(embedder.asked)
    for number in range(3):
        assert await found(manager, f"question {number}") == []
    assert len(embedder.asked) == before + 1


async def test_the_language_of_a_collection_that_changed(manager):
    """Words are looked for as its documents have them now."""
    await manager.ingest([document("the sea is deep")])
    assert await found(manager, mode="text") == ["the sea is deep"]
    await database.run(Collection.objects.filter(workspace_id=manager.scope.workspace_id).update, language="simple")
    await manager.ingest([document("the lakes are deep", source="b.md")])
    assert await found(manager, "lakes", mode="text") == ["the lakes are deep"]


def _member(workspace_id: UUID) -> int:
    user = get_user_model().objects.create_user(f"reader-{workspace_id}")
    Membership.objects.create(workspace_id=workspace_id, user=user, role=Role.MEMBER)
    return int(user.pk)


class TestTheWall:
    CANARY = "the canary sings in the mine"

    @pytest.mark.parametrize("mode", MODES)
    @pytest.mark.parametrize("planned_once", [True, False])
    async def test_it_holds_alone_in_one_statement(self, workspace_id, mode, planned_once):
        """The statement names the stranger's workspace throughout; only the connection is ours."""
        stranger = VectorStoreManager(await new_workspace(), embedder=CountingEmbedder())
        await stranger.ingest([document(self.CANARY)])
        request = SearchRequest(query=self.CANARY, mode=mode)
        plan = await stranger._plan(await stranger.collection(), request, searching.narrowing(request))

        def theirs(_: Scope) -> Any:
            return searching.statement(stranger.scope, plan)

        assert [row[4] for row in await stranger.scope.ask(theirs, planned_once=planned_once)] == [self.CANARY]
        for _ in range(2):
            assert await Scope(workspace_id).ask(theirs, planned_once=planned_once) == []

    async def test_it_comes_back_after_a_unit_of_another_workspace_within(self, workspace_id):
        def look() -> list[str]:
            with Scope(workspace_id).wall(), connection.cursor() as cursor:
                with Scope(UUID(int=7)).wall():
                    pass
                cursor.execute("SELECT current_setting('chain.workspace', true)")
                return [str(each) for each in cursor.fetchone()]

        assert await database.run(look) == [str(workspace_id)]

    async def test_it_is_gone_with_the_statement(self, workspace_id):
        def look() -> list[Any]:
            scope = Scope(workspace_id).tuned({"hnsw.ef_search": "77"})
            names = "chain.workspace", "hnsw.ef_search", "plan_cache_mode"
            shown = "SELECT " + ", ".join(f"current_setting('{name}', true)" for name in names)
            inside = scope._ask(lambda _: (shown, []), planned_once=True)
            with connection.cursor() as cursor:
                cursor.execute(shown)
                return [*inside, cursor.fetchone()]

        inside, after = await database.run(look)
        assert inside == (str(workspace_id), "77", "force_generic_plan")
        assert after[0] in ("", None)
        assert after[1:] == ("40", "auto")

    async def test_it_stands_while_statements_are_let_go_of(self, workspace_id):
        """A connection keeps so many of them; each more drops one, within the same round trip."""

        def shown(number: int, _: Scope) -> Any:
            return f"SELECT current_setting('chain.workspace', true), {number}", []

        def look() -> list[Any]:
            connection.ensure_connection()
            connection.connection.prepared_max = 1
            try:
                return [Scope(workspace_id)._ask(partial(shown, n), planned_once=True) for n in (1, 2, 3, 1, 2)]
            finally:
                connection.connection.prepared_max = 100

        assert await database.run(look) == [[(str(workspace_id), n)] for n in (1, 2, 3, 1, 2)]

    async def test_a_statement_that_fails_leaves_a_connection_that_works_without_it(self, workspace_id):
        def look() -> Any:
            with pytest.raises(DataError):
                Scope(workspace_id)._ask(lambda _: ("SELECT 1 / %s::int", [0]), planned_once=True)
            with connection.cursor() as cursor:
                cursor.execute("SELECT current_setting('chain.workspace', true)")
                return cursor.fetchone()

        assert (await database.run(look))[0] in ("", None)


class TestKeptPlans:
    async def test_a_plan_is_made_once_for_a_connection(self, workspace_id):
        def look() -> Any:
            for number in range(3):
                Scope(workspace_id)._ask(lambda _, n=number: ("SELECT %s::int AS kept", [n]), planned_once=True)
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE statement LIKE '%%AS kept'"
                )
                return cursor.fetchall()

        assert await database.run(look) == [(3, 0)]

    async def test_behind_a_pooler_none_is_kept(self, workspace_id, settings):
        settings.DJANGO_CHAIN = settings.DJANGO_CHAIN | {"DATABASE": {"PREPARE": False}}

        def look() -> Any:
            found = [
                Scope(workspace_id)._ask(lambda _: ("SELECT 7 AS not_kept", []), planned_once=True) for _ in range(2)
            ]
            with connection.cursor() as cursor:
                cursor.execute("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%%AS not_kept'")
                return [*found, cursor.fetchone()]

        assert await database.run(look) == [[(7,)], [(7,)], (0,)]

    async def test_nothing_is_kept_of_other_statements(self, workspace_id):
        """psycopg counts the texts that it may have to prepare one day; Django's hold what people wrote."""

        def look() -> Any:
            Scope(workspace_id)._ask(lambda _: ("SELECT 1", []), planned_once=True)
            with connection.cursor() as cursor:
                for _ in range(7):
                    cursor.execute("SELECT %s", ["what somebody wrote"])
            kept = connection.connection._prepared
            return [text for text, _ in [*kept._counts, *kept._names] if b"somebody" in text]

        assert await database.run(look) == []

    async def test_a_column_that_changes_its_type_is_read_as_it_is_then(self, workspace_id):
        def look() -> list[Any]:
            def ask() -> Any:
                return Scope(workspace_id)._ask(lambda _: ("SELECT x FROM changing", []), planned_once=True)

            with connection.cursor() as cursor:
                cursor.execute("CREATE TABLE changing AS SELECT 1 AS x")
            try:
                before = ask()
                # By somebody else: psycopg forgets what it has prepared on a connection that alters.
                with psycopg.connect(**connection.get_connection_params()) as other:
                    other.execute("ALTER TABLE changing ALTER x TYPE text")
                return [before, ask(), ask()]
            finally:
                with connection.cursor() as cursor:
                    cursor.execute("DROP TABLE changing")

        assert await database.run(look) == [[(1,)], [("1",)], [("1",)]]


class TestALargeCollection:
    @pytest.fixture(autouse=True)
    async def configured(self, settings: Any) -> AsyncIterator[None]:
        configure(settings, INDEX_ROWS=1000)
        words._known.cache.clear()
        yield
        words._known.cache.clear()
        await aliases.close()

    @pytest.fixture(autouse=True)
    def dropped(self, transactional_db: None) -> Iterator[None]:
        """The sets of the tests go with their rows; their indexes are looked after here."""
        yield
        VectorSet.objects.all().delete()
        indexing.drop_unneeded()

    @pytest.fixture
    async def large(self) -> VectorStoreManager:
        """All passages have a word, a single one has another; both are no word of the vectors'."""
        made = VectorStoreManager(await new_workspace(), embedder=Placed())
        into = await made.collection()
        await database.run(fill, into)
        await database.run(_write_words, into.id)
        return made

    async def test_its_index_is_asked_from_the_next_search_on(self, large):
        with counted() as before:
            await large.search("c7 asked", mode="vector")
            await large.search("c7 asked", mode="vector")
        assert await indexing.work((await large.collection()).active.id) == "ready"
        with counted() as after:
            hits = await large.search("c7 asked", mode="vector")
        assert len(hits) == SearchRequest(query="").k
        assert "halfvec" not in "".join(before)
        assert "halfvec" in after[-1]

    @pytest.mark.parametrize("k", [1, 5, 50])
    async def test_a_rare_word_is_not_lost_among_the_passages_that_have_a_common_one(self, large, k):
        assert await indexing.work((await large.collection()).active.id) == "ready"
        hits = await found(large, "common unusual zebra", mode="text", k=k)
        assert len(hits) == k
        assert hits[0] == f"c59 m{LARGE - 1}"

    async def test_without_an_index_all_passages_are_alike_that_have_one_of_the_words(self, large):
        hits = await found(large, "common unusual zebra", mode="text", k=5)
        assert len(hits) == 5
        assert f"c59 m{LARGE - 1}" not in hits

    async def test_a_common_word_is_looked_for_where_no_rare_one_finds_enough(self, large):
        assert await indexing.work((await large.collection()).active.id) == "ready"
        assert len(await found(large, "common zebra", mode="text", k=5)) == 5
        assert await found(large, "common -common", mode="text", k=5) == []

    async def test_what_is_common_for_all_may_be_the_only_word_here(self, large):
        """In this collection, or behind the filter: the less common of two common words is nowhere."""
        await database.run(_write_second_word, (await large.collection()).id)
        assert await indexing.work((await large.collection()).active.id) == "ready"
        (most,) = {hit.document_id for hit in await large.search("common", mode="text", k=1)}
        for narrowed in ({"documents": [most]}, {"where": {"eq": {"n": 0}}}, {}):
            assert len(await found(large, "common second zebra", mode="text", k=5, **narrowed)) == 5


def _write_words(collection_id: UUID) -> None:
    lookups = "UPDATE vectorstore_chunklookup SET terms = to_tsvector('english', %s) WHERE collection_id = %s"
    last = "(SELECT id FROM vectorstore_chunk WHERE collection_id = %s AND text = %s)"
    with connection.cursor() as cursor:
        cursor.execute(lookups, ["common", collection_id])
        # The last in the table, too: matches are weighed in its order.
        cursor.execute(
            f"{lookups} AND chunk_id = {last}",
            ["common unusual", collection_id, collection_id, f"c59 m{LARGE - 1}"],
        )
        cursor.execute("ANALYZE vectorstore_chunklookup")


def _write_second_word(collection_id: UUID) -> None:
    """Counted as common, as it would be if other collections were full of it, and nowhere in this one."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE vectorstore_chunklookup l SET terms = to_tsvector('english', 'common second')
            FROM vectorstore_chunk c WHERE c.id = l.chunk_id AND c.collection_id = %s AND c.position > 4
            """,
            [collection_id],
        )
        cursor.execute("ANALYZE vectorstore_chunklookup")
        cursor.execute(
            "UPDATE vectorstore_chunklookup SET terms = to_tsvector('english', 'common') WHERE collection_id = %s",
            [collection_id],
        )
