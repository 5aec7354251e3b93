"""With the keyboard alone, with a screen reader, on a phone, in the dark."""

import json
from typing import Any

from playwright.async_api import WebSocketRoute, expect

from tests.frontend.conftest import OpenTab, Panel
from tests.support.scripted_provider import Gate, endless, ok, text, wait


async def test_everything_is_done_with_the_keyboard(open_tab: OpenTab, provider: Any) -> None:
    provider.script("keys", endless("tick ", every=0.02))
    tab = await open_tab()
    box = tab.page.get_by_label("Message", exact=True)
    await expect(box).to_be_focused()
    await tab.page.keyboard.type("one")
    await tab.page.keyboard.press("Shift+Enter")
    await tab.page.keyboard.type("two [[keys]]")
    await expect(box).to_have_value("one\ntwo [[keys]]")
    await tab.page.keyboard.press("Enter")
    await expect(tab.answer).to_contain_text("tick")
    await expect(tab.questions).to_have_text("one\ntwo [[keys]]", use_inner_text=True)
    await tab.page.keyboard.press("Escape")
    await expect(tab.answers.last).to_have_attribute("data-status", "stopped")
    # Back from the box: what can be done with the messages, the conversation, the documents, sign out, the list,
    # a new conversation, the link that skips all of it.
    for stop in (
        *(tab.page.get_by_role("button", name=name) for name in ("Delete answer", "Regenerate answer")),
        *(tab.page.get_by_role("button", name=name) for name in ("Delete message", "Edit message")),
        tab.page.get_by_role("region", name="Conversation"),
        tab.page.get_by_role("button", name="Documents"),
        tab.page.get_by_role("button", name="Sign out"),
        tab.page.get_by_role("navigation").get_by_role("link").first,
        tab.page.get_by_role("link", name="New conversation"),
        tab.page.get_by_role("link", name="Skip to the message box"),
    ):
        await tab.page.keyboard.press("Shift+Tab")
        await expect(stop).to_be_focused()
    await tab.page.keyboard.press("Tab")
    await tab.page.keyboard.press("Enter")
    await expect(box).to_be_focused()
    await expect(tab.page.get_by_role("heading", name="What would you like to know?")).to_be_visible()


async def test_a_screen_reader_is_told_of_the_answer_once_and_whole(open_tab: OpenTab, provider: Any) -> None:
    gate = Gate()
    provider.script("spoken", text("It ", "is "), wait(gate), text("a ", "fact."), ok())
    tab = await open_tab()
    await tab.page.evaluate(
        """() => {
            window.told = [];
            const news = document.getElementById("answer-news");
            new MutationObserver(() => told.push(news.textContent)).observe(news, {childList: true, subtree: true});
        }"""
    )
    await tab.ask("[[spoken]]")
    await expect(tab.page.get_by_role("log")).to_have_attribute("aria-live", "off")
    await expect(tab.answer).to_have_text("It is")
    gate.release()
    await expect(tab.answers.last).to_have_attribute("data-status", "complete")
    assert await tab.page.evaluate("told.filter(Boolean)") == ["Answering…", "Answer: It is a fact."]


async def test_an_answer_that_is_whole_when_it_is_first_heard_of_is_told_too(open_tab: OpenTab, provider: Any) -> None:
    def whole(socket: WebSocketRoute) -> None:
        """As after a connection that broke: what there was of the answer before its end never comes."""

        def receive(frame: str | bytes) -> None:
            told = json.loads(frame)
            if told["type"] not in {"delta", "step"} and told.get("message", {}).get("status") != "pending":
                socket.send(frame)

        socket.connect_to_server().on_message(receive)

    provider.script("whole", text("It is a fact."), ok())
    tab = await open_tab()
    await tab.page.route_web_socket("**/ws/**", whole)
    await tab.page.reload()
    await tab.ask("[[whole]]")
    news = tab.page.locator("#answer-news")
    await expect(news).to_have_text("Answer: It is a fact.")
    await tab.page.reload()
    await expect(tab.answer).to_have_text("It is a fact.")
    await expect(news).to_be_empty()


async def test_an_answer_that_came_behind_a_dialog_is_told_when_that_is_shut(open_tab: OpenTab, provider: Any) -> None:
    gate = Gate()
    provider.script("held", text("It is "), wait(gate), text("a fact."), ok())
    tab = await open_tab()
    await tab.ask("[[held]]")
    await expect(tab.answer).to_have_text("It is")
    panel = await Panel(tab).open()
    gate.release()
    await expect(tab.answers.last).to_have_attribute("data-status", "complete")
    # Nothing outside of a dialog is read out: said now, it would be lost.
    news = tab.page.locator("#answer-news")
    await expect(news).to_have_text("Answering…")
    await tab.page.keyboard.press("Escape")
    await expect(panel.root).to_be_hidden()
    await expect(news).to_have_text("Answer: It is a fact.")


async def test_on_a_phone_the_list_is_a_drawer(open_tab: OpenTab) -> None:
    tab = await open_tab(viewport={"width": 390, "height": 760}, has_touch=True, is_mobile=True, color_scheme="dark")
    await tab.ask("hello from a phone")
    await expect(tab.answer).to_contain_text("hello from a phone")
    sign_out = tab.page.get_by_role("button", name="Sign out")
    await expect(sign_out).to_be_hidden()
    menu = tab.page.get_by_role("button", name="Conversations")
    await menu.click()
    await expect(sign_out).to_be_in_viewport()
    # What is behind it is shut off, but for the news.
    await expect(tab.page.locator("[inert]")).to_have_attribute("id", "main")
    assert await tab.page.evaluate("document.getElementById('answer-news').closest('[inert]')") is None
    await tab.page.keyboard.press("Escape")
    await expect(sign_out).to_be_hidden()
    await expect(menu).to_be_focused()
    width = await tab.page.evaluate("document.documentElement.scrollWidth")
    assert width <= 390


async def test_each_message_has_its_own_direction(open_tab: OpenTab, provider: Any) -> None:
    provider.script("rtl", text("مرحبا بالعالم"), ok())
    tab = await open_tab()
    await tab.ask("left to right [[rtl]]")
    await expect(tab.answer).to_have_css("direction", "rtl")
    await expect(tab.questions.first).to_have_css("direction", "ltr")
