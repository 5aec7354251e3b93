"""A stored workflow as a LangChain Runnable: LangChain's own interface, over our runs."""

import asyncio
from typing import Any

import pytest
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.runnables import Runnable, RunnableLambda, RunnableParallel

from accounts.access import workspace_for
from kernel import database
from kernel.errors import Invalid
from llm import versions
from llm.errors import ProviderUnavailable
from llm.models import InteractionLog, Workflow
from tests.conftest import Person
from tests.llm.conftest import Configure


@pytest.fixture(autouse=True)
def _fakes(configure: Configure) -> None:
    configure(
        default={"PROVIDER": "fake", "MODEL": "fake"},
        json={"PROVIDER": "fake", "MODEL": "fake", "OPTIONS": {"text": '{"n": 1}'}},
        long={"PROVIDER": "fake", "MODEL": "fake", "OPTIONS": {"text": "word ", "tokens": 10_000, "delay": 0.05}},
        broken={"PROVIDER": "fake", "MODEL": "fake", "OPTIONS": {"error": "provider_unavailable"}, "MAX_RETRIES": 0},
    )


@pytest.fixture
def stored(person: Person) -> Any:
    """`stored(steps)`: a workflow of the person's workspace."""

    def store(steps: Any) -> Workflow:
        workspace = workspace_for(person.caller)
        return versions.create(Workflow, workspace.pk, "chain", user_id=None, activate=True, workflow_definition=steps)

    return store


PLAIN = [{"type": "prompt", "template": "{tone}: {question}"}, {"type": "llm"}, {"type": "parser"}]
VALUE = [{"type": "llm", "model": "json"}, {"type": "parser", "parser": "json"}]
ASKED = {"question": "why?", "variables": {"tone": "kind"}}


class TestAsync:
    async def test_the_answer_of_a_question_and_its_variables(self, stored: Any) -> None:
        chain = (await database.run(stored, PLAIN)).as_runnable()

        assert isinstance(chain, Runnable)
        assert await chain.ainvoke(ASKED) == "You said: kind: why?"
        assert await chain.ainvoke({"input": "why?", "tone": "dry"}) == "You said: dry: why?"

    async def test_a_text_is_a_question_and_a_parsed_answer_a_value(self, stored: Any) -> None:
        assert await (await database.run(stored, VALUE)).as_runnable().ainvoke("why?") == {"n": 1}

    async def test_the_pieces_come_as_they_are_said(self, stored: Any) -> None:
        chain = (await database.run(stored, PLAIN)).as_runnable()

        pieces = [piece async for piece in chain.astream(ASKED)]

        assert len(pieces) == 4
        assert "".join(pieces) == "You said: kind: why?"

    async def test_of_a_value_there_is_one_piece(self, stored: Any) -> None:
        chain = (await database.run(stored, VALUE)).as_runnable()

        assert [piece async for piece in chain.astream("why?")] == [{"n": 1}]

    async def test_many_at_once(self, stored: Any) -> None:
        chain = (await database.run(stored, PLAIN)).as_runnable()
        asked = [{"question": str(n), "tone": "t"} for n in range(5)]

        assert await chain.abatch(asked) == [f"You said: t: {n}" for n in range(5)]

    async def test_it_is_a_part_of_a_chain(self, stored: Any) -> None:
        inner = (await database.run(stored, PLAIN)).as_runnable()
        ask = RunnableLambda(lambda text: {"question": text, "tone": "t"})
        chain = ask | RunnableParallel(a=inner) | (lambda out: out["a"].upper())

        assert await chain.ainvoke("x") == "YOU SAID: T: X"

    async def test_callbacks_of_the_config_hear_of_the_run_and_of_its_failure(self, stored: Any) -> None:
        heard: list[str] = []

        class Hear(AsyncCallbackHandler):
            async def on_chain_start(self, *args: Any, name: str = "", **kwargs: Any) -> None:
                heard.append(f"start {name}")

            async def on_chain_end(self, outputs: Any, **kwargs: Any) -> None:
                heard.append(f"end {outputs}")

            async def on_chain_error(self, error: BaseException, **kwargs: Any) -> None:
                heard.append(type(error).__name__)

        config = {"callbacks": [Hear()]}
        good = (await database.run(stored, VALUE)).as_runnable()
        await good.ainvoke("x", config)
        assert heard == ["start chain", "end {'n': 1}"]
        bad = (await database.run(stored, [{"type": "llm", "model": "broken"}])).as_runnable()
        with pytest.raises(ProviderUnavailable):
            await bad.ainvoke("x", config)
        assert heard[-1] == "ProviderUnavailable"

    async def test_its_calls_are_logged_unless_told_otherwise(self, stored: Any) -> None:
        row = await database.run(stored, PLAIN)
        logs = InteractionLog.objects.filter(workflow_id=row.pk)

        await row.as_runnable(log=False).ainvoke(ASKED)
        assert await database.run(logs.count) == 0
        await row.as_runnable().ainvoke(ASKED)
        log = await database.run(logs.get)
        assert (log.status, [step["path"] for step in log.steps]) == ("ok", ["steps[0]", "steps[1]", "steps[2]"])

    async def test_leaving_a_stream_ends_the_run(self, stored: Any) -> None:
        row = await database.run(stored, [{"type": "llm", "model": "long"}])

        pieces = row.as_runnable().astream(ASKED)
        await anext(pieces)
        await pieces.aclose()

        for _ in range(200):
            log = await database.run(InteractionLog.objects.filter(workflow_id=row.pk).get)
            if log.status != "started":
                break
            await asyncio.sleep(0.02)
        assert log.status == "stopped"

    @pytest.mark.parametrize("asked", [3, {"question": 3}, {"question": "x", "variables": "tone"}])
    async def test_what_is_no_question_is_refused(self, stored: Any, asked: Any) -> None:
        chain = (await database.run(stored, VALUE)).as_runnable()

        with pytest.raises(Invalid):
            await chain.ainvoke(asked)

    async def test_the_sync_methods_say_what_to_use_in_an_event_loop(self, stored: Any) -> None:
        chain = (await database.run(stored, VALUE)).as_runnable()

        with pytest.raises(RuntimeError, match="use ainvoke"):
            chain.invoke("x")
        with pytest.raises(RuntimeError, match="astream"):
            next(chain.stream("x"))


class TestSync:
    def test_without_an_event_loop(self, stored: Any) -> None:
        chain = stored(PLAIN).as_runnable()

        assert chain.invoke(ASKED) == "You said: kind: why?"
        assert "".join(chain.stream(ASKED)) == "You said: kind: why?"
        assert chain.batch([ASKED, ASKED]) == ["You said: kind: why?"] * 2

    def test_leaving_a_stream_early(self, stored: Any) -> None:
        row = stored([{"type": "llm", "model": "long"}])
        pieces = row.as_runnable().stream(ASKED)

        assert next(pieces).strip() == "word"
        pieces.close()

        # The loop is gone with it, so nothing is left to do later.
        assert InteractionLog.objects.get(workflow_id=row.pk).status == "stopped"

    def test_the_name_that_the_peers_users_know(self, stored: Any) -> None:
        assert stored(VALUE).to_langchain_chain(log="true", session_id=None).invoke("x") == {"n": 1}

    def test_its_callbacks_may_be_sync(self, stored: Any) -> None:
        heard = []

        class Hear(BaseCallbackHandler):
            def on_chain_end(self, outputs: Any, **kwargs: Any) -> None:
                heard.append(outputs)

        stored(VALUE).as_runnable().invoke("x", {"callbacks": [Hear()]})

        assert heard == [{"n": 1}]
