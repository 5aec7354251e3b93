"""The first minute: sign in, ask, watch."""

import re
from typing import Any

from playwright.async_api import expect

from tests.conftest import Person
from tests.frontend.conftest import OpenTab, Tab
from tests.support.scripted_provider import Gate, ok, text, wait


async def test_a_visitor_signs_in_and_watches_the_first_answer_arrive(
    stranger: Tab, person: Person, provider: Any
) -> None:
    gate = Gate()
    provider.script("first", text("Three ", "years"), wait(gate), text(" and a **day**."), ok())
    await stranger.visit("/")
    await stranger.page.get_by_label(re.compile("username", re.IGNORECASE)).fill(person.user.get_username())
    await stranger.page.get_by_label("Password").fill("correct horse")
    await stranger.page.get_by_role("button", name="Sign In").click()
    await stranger.ask("How long? [[first]]")
    await expect(stranger.answer).to_have_text("Three years")
    await expect(stranger.stop).to_be_visible()
    gate.release()
    await expect(stranger.answer.locator("strong")).to_have_text("day")
    await expect(stranger.stop).to_be_hidden()
    await expect(stranger.answer).to_have_text("Three years and a day.")
    await expect(stranger.page).to_have_url(re.compile(r"/c/[0-9a-f-]{36}/$"))
    await expect(stranger.page.get_by_role("navigation").get_by_text("How long? [[first]]")).to_be_visible()
    await stranger.check()


async def test_the_sign_in_page_says_what_was_wrong_and_loads_nothing_foreign(stranger: Tab) -> None:
    await stranger.visit("/")
    await stranger.page.get_by_label(re.compile("username", re.IGNORECASE)).fill("nobody-of-that-name")
    await stranger.page.get_by_label("Password").fill("wrong")
    await stranger.page.get_by_role("button", name="Sign In").click()
    await expect(stranger.page.get_by_role("alert")).to_contain_text("not correct")
    await stranger.check()


async def test_a_conversation_that_ended_in_sign_out_leads_back_to_it_after_sign_in(open_tab: OpenTab) -> None:
    tab = await open_tab()
    await tab.ask("hello")
    await expect(tab.answer).to_contain_text("hello")
    path = tab.page.url.removeprefix(tab.server.url)
    await tab.page.context.clear_cookies()
    await tab.page.evaluate("dispatchEvent(new Event('focus'))")
    await expect(tab.page).to_have_url(f"{tab.server.url}/accounts/login/?next={path.replace('/', '%2F')}")
