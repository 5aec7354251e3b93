"""What the page says of a workflow at work, of waiting, and of the failures that workflows and budgets bring."""

from collections.abc import Callable
from typing import Any

import pytest
from playwright.async_api import expect

from tests.conftest import Person
from tests.frontend.conftest import OpenTab, Tab
from tests.support.scripted_provider import Gate, ok, status, text, wait
from tests.support.server import Server, rest
from tests.support.stage import settings

SAID = """async (frames) => {
    const {follow, words} = await import("/static/frontend/progress.js");
    let progress;
    return frames.map(([name, state, detail]) => words((progress = follow(progress, {name, state, detail}))));
}"""
THINKING, TOGETHER = "Thinking…", "Working on several things at once…"
LOOKS = "Searching the documents…"


def asks(mark: str, **options: Any) -> list[dict[str, Any]]:
    return [{"type": "prompt", "template": f"[[{mark}]] {{question}}"}, {"type": "llm", **options}]


@pytest.fixture
def desk(spawn: Callable[..., Server], provider: Any, person: Person) -> Server:
    """A server with a workflow of two calls side by side and a last one of a model that takes one call at a time."""
    place = {"base_url": provider.base_url, "api_key": "sk-test-not-a-key"}
    model = {"PROVIDER": "openai", "MODEL": "scripted", "OPTIONS": place, "MAX_RETRIES": 0}
    models = {"default": model, "narrow": {**model, "MODEL": "narrow", "MAX_CONCURRENT": 1}}
    server = spawn(env=settings(LLM={"MODELS": models}))
    side_by_side = {"type": "parallel", "branches": {"left": asks("left"), "right": asks("right")}}
    for name, steps in {
        "desk": [{"type": "retrieve"}, side_by_side, *asks("last", model="narrow")],
        "narrow": [{"type": "prompt", "template": "{question}"}, {"type": "llm", "model": "narrow"}],
    }.items():
        rest(server, person.token, "POST", "/workflows", json={"name": name, "workflow_definition": steps})
    return server


async def at_the_desk(open_tab: OpenTab, person: Person, server: Server) -> Tab:
    return await open_tab(f"/c/{person.new_session(server, workflow='desk')}/", server=server)


async def test_it_says_what_goes_on_and_who_waits(
    open_tab: OpenTab, provider: Any, person: Person, desk: Server
) -> None:
    left, right, held = Gate(), Gate(), Gate()
    provider.script("left", wait(left), text("one"), ok())
    provider.script("right", wait(right), text("two"), ok())
    provider.script("last", text("both"), ok())
    provider.script("held", wait(held), text("done"), ok())
    tab = await at_the_desk(open_tab, person, desk)
    says = tab.answers.last.locator(".state")
    async with person.client(desk, person.new_session(desk, workflow="narrow")) as other:
        await other.send("[[held]]")
        await tab.ask("Both?")
        await expect(says).to_have_text(TOGETHER)
        left.release()
        right.release()
        await expect(says).to_have_text("Waiting: number 1 in the queue…")
        held.release()
        await expect(tab.answer).to_have_text("both")
        await expect(says).to_be_hidden()


async def test_a_failed_branch_fails_the_answer_in_words(
    open_tab: OpenTab, provider: Any, person: Person, desk: Server
) -> None:
    never = Gate()
    provider.script("left", wait(never), ok())
    provider.script("right", status(500))
    tab = await at_the_desk(open_tab, person, desk)
    await tab.ask("Both?")
    await expect(tab.answers.last.get_by_role("alert")).to_have_text("The model can't be reached.")
    never.release()


async def test_a_budget_that_is_used_up_is_said(open_tab: OpenTab, spawn: Callable[..., Server]) -> None:
    budgets = [
        {"KIND": "tokens_per_day", "LIMIT": 1},
        {"KIND": "messages_per_minute", "LIMIT": 1, "PER": "user"},
    ]
    tab = await open_tab(server=spawn(env=settings(LLM={"BUDGETS": budgets})))
    await tab.ask("the tokens are used up")
    await expect(tab.answers.last.get_by_role("alert")).to_have_text("A budget is used up. Ask again later.")
    await tab.ask("and now the messages are, too")
    await expect(tab.page.locator(".message.user").last.locator(".state")).to_contain_text("It will be sent again.")
    await expect(tab.answers).to_have_count(1)


def step(name: str, state: str, path: str = "", **detail: Any) -> list[Any]:
    return [name, state, {**({"path": path} if path else {}), **detail}]


async def test_steps_side_by_side_are_told_as_one(open_tab: OpenTab) -> None:
    tab = await open_tab()
    story = [
        (LOOKS, step("retrieve", "started", "steps[0]")),
        (THINKING, step("retrieve", "finished", "steps[0]")),
        (TOGETHER, step("parallel", "started", "steps[1]")),
        (TOGETHER, step("prompt", "finished", "steps[1].branches.a[0]")),
        (TOGETHER, step("retrieve", "started", "steps[1].branches.b[0]")),
        (TOGETHER, step("llm", "started", "steps[1].branches.a[1]")),
        ("Waiting: number 2 in the queue…", step("queue", "queued", place=2)),
        ("Waiting: number 1 in the queue…", step("queue", "queued", place=1)),
        (TOGETHER, step("queue", "finished")),
        (TOGETHER, step("llm", "failed", "steps[1].branches.a[1]")),
        (THINKING, step("parallel", "failed", "steps[1]")),
        (THINKING, step("llm", "started", "steps[10]")),
    ]
    assert await tab.page.evaluate(SAID, [frame for _, frame in story]) == [words for words, _ in story]


async def test_the_end_of_a_step_may_be_missed(open_tab: OpenTab) -> None:
    tab = await open_tab()
    story = [
        (TOGETHER, step("parallel", "started", "steps[1]")),
        (THINKING, step("llm", "started", "steps[2]")),
        (LOOKS, step("retrieve", "started", "steps[3]")),
        (LOOKS, step("parallel", "finished", "steps[1]")),
        ("Waiting for its turn…", step("queue", "queued")),
        (THINKING, step("llm", "started", "steps[4]")),
    ]
    assert await tab.page.evaluate(SAID, [frame for _, frame in story]) == [words for words, _ in story]
