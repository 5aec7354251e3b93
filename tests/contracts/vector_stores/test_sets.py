"""What every vector store promises of a set of vectors, whichever one a collection's vectors are in."""

import asyncio
import math
from uuid import UUID, uuid4

import pytest

from tests.contracts.vector_stores.conftest import at, filled, new_set
from tests.support.vector_stores import DIMENSION
from vectorstore.backends import Picking
from vectorstore.errors import EmbeddingMismatch

pytestmark = pytest.mark.django_db(transaction=True)


class TestSets:
    async def test_a_new_set_is_empty(self, store):
        made = await new_set(store)
        assert await made.found(at(0)) == []
        assert (await made.backend.stats(made.info)).vectors == 0
        await made.backend.remove(made.info, [made.chunks[0]])
        await made.backend.drop(made.info)

    async def test_the_nearest_come_first_with_the_cosine_as_score(self, store):
        made = await new_set(store)
        order = [3, 0, 7, 1, 10, 2, 9, 4, 11, 5, 8, 6]
        await made.backend.add(made.info, [made.entry(n, at(10 * n)) for n in order])
        hits = await made.backend.search(made.info, at(0), k=12)
        assert [made.chunks.index(hit.chunk_id) for hit in hits] == list(range(12))
        for n, hit in enumerate(hits):
            assert hit.score == pytest.approx(math.cos(math.radians(10 * n)), abs=1e-3)
        assert hits[-1].score < 0

    @pytest.mark.parametrize("k", [1, 5, 12, 50])
    async def test_no_more_than_asked_for(self, store, k):
        made = await filled(store)
        assert await made.found(at(0), k=k) == list(range(min(k, 12)))

    async def test_a_known_id_takes_the_place_of_what_it_had(self, store):
        made = await filled(store, 3)
        await made.backend.add(made.info, [made.entry(0, at(50))])
        assert await made.found(at(0)) == [1, 2, 0]
        assert (await made.backend.stats(made.info)).vectors == 3

    async def test_removed_ids_are_not_found_and_unknown_ones_no_error(self, store):
        made = await filled(store, 4)
        await made.backend.remove(made.info, [made.chunks[0], made.chunks[2], uuid4()])
        assert await made.found(at(0)) == [1, 3]
        assert (await made.backend.stats(made.info)).vectors == 2
        await made.backend.remove(made.info, [])

    async def test_a_dropped_set_is_empty_and_can_be_filled_again(self, store):
        made = await filled(store, 3)
        await made.backend.drop(made.info)
        assert await made.found(at(0)) == []
        assert (await made.backend.stats(made.info)).vectors == 0
        await made.backend.drop(made.info)
        await made.backend.add(made.info, [made.entry(1, at(0))])
        assert await made.found(at(0)) == [1]

    async def test_sets_know_nothing_of_each_other(self, store):
        one = await filled(store, 3)
        same_workspace = await new_set(store, one.info.workspace_id)
        other = await new_set(store)
        await other.backend.add(other.info, [other.entry(0, at(0))])
        await same_workspace.backend.add(same_workspace.info, [same_workspace.entry(5, at(0))])
        assert [len(await each.found(at(0))) for each in (one, same_workspace, other)] == [3, 1, 1]
        await one.backend.drop(one.info)
        assert await same_workspace.found(at(0)) == [5]
        assert await other.found(at(0)) == [0]

    async def test_many_at_once_are_all_kept(self, store):
        made = await new_set(store, chunks=1200)
        await made.backend.add(made.info, [made.entry(n, at(n / 10)) for n in range(1200)])
        assert (await made.backend.stats(made.info)).vectors == 1200
        assert await made.found(at(0), k=3) == [0, 1, 2]
        await made.backend.remove(made.info, made.chunks[1:])
        assert await made.found(at(0), k=3) == [0]

    async def test_work_at_the_same_time_is_all_done(self, store):
        made = await new_set(store)
        await asyncio.gather(*(made.backend.add(made.info, [made.entry(n, at(10 * n))]) for n in range(12)))
        found = await asyncio.gather(*(made.found(at(10 * n), k=1) for n in range(12)))
        assert found == [[n] for n in range(12)]

    async def test_a_vector_without_length_finds_nothing_and_is_found_by_nothing(self, store):
        made = await filled(store, 2)
        nothing = [0.0] * DIMENSION
        await made.backend.add(made.info, [made.entry(1, nothing), made.entry(2, nothing)])
        assert await made.found(at(0)) == [0]
        assert await made.found(nothing) == []

    async def test_a_wrong_dimension_is_an_error_before_anything_is_written(self, store):
        made = await new_set(store)
        with pytest.raises(EmbeddingMismatch, match="64"):
            await made.backend.add(made.info, [made.entry(0, at(0)), made.entry(1, [1.0, 0.0])])
        assert (await made.backend.stats(made.info)).vectors == 0

    async def test_it_says_that_it_is_well(self, store):
        await (await new_set(store)).backend.health()


class TestPicking:
    async def test_a_store_that_can_finds_the_nearest_of_some_chunks(self, store):
        made = await new_set(store, chunks=1300)
        if not isinstance(made.backend, Picking):
            pytest.skip("is asked for more instead")
        await made.backend.add(made.info, [made.entry(n, at(n / 10)) for n in range(1300)])

        async def among(ids: list[UUID], k: int = 3) -> list[int]:
            hits = await made.backend.search_among(made.info, at(0), ids, k=k)
            return [made.chunks.index(hit.chunk_id) for hit in hits]

        assert await among(made.chunks[300:]) == [300, 301, 302]
        assert await among([made.chunks[1299], made.chunks[7], uuid4()]) == [7, 1299]
        assert await among([]) == await among([uuid4()]) == []
        assert len(await among(made.chunks[300:], k=50)) == 50
