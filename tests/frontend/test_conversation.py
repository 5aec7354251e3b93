"""A conversation on the page: streams, survives reloads and restarts, is the same in every tab, stops."""

import asyncio
import re
from collections.abc import Callable
from typing import Any

from playwright.async_api import Route, expect

from tests.frontend.conftest import OpenTab
from tests.support.scripted_provider import Gate, cut, endless, ok, text, tokens, until, wait
from tests.support.server import Server

NUMBERS = [f"{n} " for n in range(400)]
WHOLE = "".join(NUMBERS).strip()


async def test_a_reload_in_mid_answer_goes_on_without_a_gap(open_tab: OpenTab, provider: Any) -> None:
    half, end = Gate(), Gate()
    provider.script(
        "reload", text(*NUMBERS[:150]), wait(half), text(*NUMBERS[150:300]), wait(end), text(*NUMBERS[300:]), ok()
    )
    tab = await open_tab()
    await tab.ask("[[reload]]")
    await expect(tab.answer).to_contain_text("149")
    half.release()
    await tab.page.reload()
    await expect(tab.answer).to_contain_text("299")
    await expect(tab.answers.last).to_have_attribute("data-status", "pending")
    end.release()
    await expect(tab.answer).to_have_text(WHOLE)
    await expect(tab.questions).to_have_text(["[[reload]]"])


async def test_a_second_tab_at_another_server_process_shows_the_same(
    open_tab: OpenTab, provider: Any, servers: tuple[Server, Server]
) -> None:
    half, end = Gate(), Gate()
    provider.script(
        "tabs", text(*NUMBERS[:100]), wait(half), text(*NUMBERS[100:200]), wait(end), text(*NUMBERS[200:]), ok()
    )
    first = await open_tab()
    await first.ask("[[tabs]]")
    await expect(first.answer).to_contain_text("99")
    second = await open_tab(first.page.url.removeprefix(first.server.url), server=servers[1])
    await expect(second.answer).to_contain_text("99")
    half.release()
    await expect(second.answer).to_contain_text("199")
    end.release()
    for tab in (first, second):
        await expect(tab.answer).to_have_text(WHOLE)
    await second.ask("and from the second tab")
    await expect(first.questions).to_have_text(["[[tabs]]", "and from the second tab"])


async def test_stop_ends_the_models_call_and_keeps_the_text(open_tab: OpenTab, provider: Any) -> None:
    provider.script("endless", endless("on and ", every=0.02))
    tab = await open_tab()
    await tab.ask("[[endless]]")
    await expect(tab.answer).to_contain_text("on and on")
    await tab.stop.click()
    await expect(tab.answers.last).to_have_attribute("data-status", "stopped")
    await expect(tab.answers.last).to_contain_text("Stopped.")
    await expect(tab.answer).to_contain_text("on and on")
    await expect(tab.stop).to_be_hidden()
    assert await until(provider.wait_for("endless").disconnected, 2)
    await tab.ask("the next one works")
    await expect(tab.answer).to_contain_text("echo: the next one works")


async def test_a_message_written_while_the_server_is_away_arrives_once(
    open_tab: OpenTab, spawn: Callable[..., Server]
) -> None:
    server = spawn()
    tab = await open_tab(server=server)
    await tab.ask("before")
    await expect(tab.answer).to_contain_text("echo: before")
    server.kill()
    await expect(tab.page.locator("#status-text")).to_contain_text("Reconnecting")
    await tab.ask("while it is away")
    await expect(tab.page.locator(".message.user .state").last).to_have_text("Sending…")
    server.start()
    await tab.page.evaluate("document.getElementById('retry').click()")
    await tab.connected()
    await expect(tab.answers).to_have_count(2)
    await expect(tab.answer).to_contain_text("echo: while it is away")
    await tab.page.reload()
    await expect(tab.questions).to_have_text(["before", "while it is away"])


async def test_an_unsent_message_outlives_a_reload(open_tab: OpenTab, spawn: Callable[..., Server]) -> None:
    server = spawn()
    tab = await open_tab(server=server)
    await tab.ask("before")
    await expect(tab.answer).to_contain_text("echo: before")
    # The socket is cut in the page: the server never sees the message that follows.
    await tab.page.evaluate(
        "import('/static/frontend/page.js').then(({page}) => { page.client.socket.send = () => {}; })"
    )
    await tab.ask("lost on the way")
    await expect(tab.questions).to_have_count(2)
    await tab.page.reload()
    await expect(tab.answer).to_contain_text("echo: lost on the way")
    await expect(tab.questions).to_have_text(["before", "lost on the way"])


async def test_reading_above_is_not_disturbed_by_what_arrives_below(open_tab: OpenTab, provider: Any) -> None:
    provider.script("tall", tokens(120, "line\n\n"), ok())
    provider.script("more", tokens(200, "more\n\n", every=0.01), ok())
    tab = await open_tab()
    await tab.ask("[[tall]]")
    await expect(tab.answers.last).to_have_attribute("data-status", "complete")
    await tab.ask("[[more]]")
    await expect(tab.answer).to_contain_text("more")
    scroller = tab.page.locator("#scroller")
    await scroller.hover()
    await tab.page.mouse.wheel(0, -400)
    await expect(tab.page.locator("#latest")).to_be_visible()
    before = await scroller.evaluate("(element) => element.scrollTop")
    await expect(tab.answers.last).to_have_attribute("data-status", "complete")
    assert abs(await scroller.evaluate("(element) => element.scrollTop") - before) <= 1
    await tab.page.locator("#latest").click()
    below = "(element) => element.scrollHeight - element.clientHeight - element.scrollTop"
    assert await scroller.evaluate(below) <= 1
    await expect(tab.page.locator("#latest")).to_be_hidden()


async def test_a_failed_answer_says_so_and_the_next_one_works(open_tab: OpenTab, provider: Any) -> None:
    provider.script("broken", text("half of "), cut())
    tab = await open_tab()
    await tab.ask("[[broken]]")
    await expect(tab.answers.last).to_have_attribute("data-status", "failed")
    await expect(tab.answers.last.get_by_role("alert")).to_be_visible()
    await expect(tab.answer).to_have_text("half of")
    await tab.ask("again")
    await expect(tab.answer).to_contain_text("echo: again")


async def test_a_list_that_was_read_before_the_first_message_leaves_the_conversation_its_title(
    open_tab: OpenTab,
) -> None:
    tab = await open_tab()
    created: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
    asked, answered = asyncio.Event(), asyncio.Event()

    async def slow(route: Route) -> None:
        if route.request.method == "POST":
            response = await route.fetch()
            created.set_result(await response.json())
            await route.fulfill(response=response)
        else:  # as the list was when the conversation had just been made
            asked.set()
            await answered.wait()
            await route.fulfill(json={"sessions": [await created], "next": None})

    await tab.page.route(re.compile(r"/api/v1/sessions(\?.*)?$"), slow)
    await tab.page.reload()
    await tab.ask("How long is it?")
    await expect(tab.answer).to_contain_text("How long is it?")
    await asyncio.wait_for(asked.wait(), 10)
    answered.set()
    await tab.page.wait_for_function("document.getElementById('sessions').ariaBusy === 'false'")
    await expect(tab.page.get_by_role("navigation").get_by_role("link")).to_have_text(["How long is it?"])
