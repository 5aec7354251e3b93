"""LangChain's own suites for caches, over a workspace's answers; and what they don't ask."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.utils import timezone
from langchain_core.caches import BaseCache
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, Generation
from langchain_tests.integration_tests import AsyncCacheTestSuite, SyncCacheTestSuite

from llm.langchain_cache import AnswersOf
from llm.models import CachedAnswer
from tests.conftest import Person


@pytest.fixture
def cache(person: Person) -> Iterator[BaseCache]:
    yield AnswersOf(person.user.personal_workspace.id)
    CachedAnswer.objects.filter(workspace=person.user.personal_workspace).delete()


class TestSync(SyncCacheTestSuite):
    @pytest.fixture
    def cache(self, cache: BaseCache) -> BaseCache:
        return cache


class TestAsync(AsyncCacheTestSuite):
    @pytest.fixture
    async def cache(self, cache: BaseCache) -> BaseCache:
        return cache


CALL = AIMessage(
    "é🙂\0",
    id="run-1",
    tool_calls=[{"name": "now", "args": {"zone": "UTC"}, "id": "1", "type": "tool_call"}],
    usage_metadata={"input_tokens": 7, "output_tokens": 2, "total_tokens": 9},
)


def test_a_message_comes_back_whole_with_its_tool_calls_and_its_usage(cache):
    cache.update("p", "m", [ChatGeneration(message=CALL)])
    (found,) = AnswersOf(cache._workspace_id).lookup("p", "m")
    assert found.message == CALL
    row = CachedAnswer.objects.get(workspace_id=cache._workspace_id)
    assert (row.input_tokens, row.output_tokens) == (7, 2)


async def test_a_model_of_langchain_is_asked_once(cache):
    model = GenericFakeChatModel(messages=iter([AIMessage("first"), AIMessage("second")]), cache=cache)
    answers = [(await model.ainvoke([HumanMessage("hello")])).content for _ in range(2)]
    assert answers == ["first", "first"]
    assert (await model.ainvoke([HumanMessage("other")])).content == "second"


def test_another_workspace_is_never_given_it_and_clears_only_its_own(cache, make):
    other = AnswersOf(make().user.personal_workspace.id)
    cache.update("p", "m", [Generation(text="mine")])
    assert other.lookup("p", "m") is None
    other.clear()
    assert cache.lookup("p", "m") == [Generation(text="mine")]


def test_the_border_between_prompt_and_model_is_part_of_the_key(cache):
    cache.update("ab", "c", [Generation(text="x")])
    assert cache.lookup("a", "bc") is None
    assert cache.lookup("ab", "d") is None


def test_what_has_expired_is_not_given_again(cache):
    cache.update("p", "m", [Generation(text="x")])
    CachedAnswer.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert cache.lookup("p", "m") is None


def test_the_answers_of_workflows_stay_when_it_is_cleared(cache):
    row = CachedAnswer(
        workspace_id=cache._workspace_id,
        key="a" * 64,
        text="x",
        input_tokens=1,
        output_tokens=1,
        expires_at=timezone.now() + timedelta(hours=1),
    )
    row.save()
    cache.update("p", "m", [Generation(text="x")])
    cache.clear()
    assert list(CachedAnswer.objects.filter(workspace_id=cache._workspace_id)) == [row]


def test_what_json_can_not_hold_is_not_kept(cache):
    cache.update("p", "m", [Generation(text="x", generation_info={"raw": object()})])
    assert cache.lookup("p", "m") is None
