"""Edit, regenerate and delete on the page: one branch is shown, live, after a reload and in another tab."""

from typing import Any
from uuid import uuid4

from playwright.async_api import expect

from tests.frontend.conftest import OpenTab, Tab
from tests.support.scripted_provider import ok, text
from tests.support.server import Server


def path(tab: Tab) -> str:
    return tab.page.url.removeprefix(tab.server.url)


async def test_an_edited_question_takes_the_place_of_the_old_branch(
    open_tab: OpenTab, servers: tuple[Server, Server]
) -> None:
    tab = await open_tab()
    await tab.ask("with a slip")
    await expect(tab.answer).to_have_text("echo: with a slip")
    await tab.ask("what follows")
    await expect(tab.answer).to_have_text("echo: what follows")
    other = await open_tab(path(tab), server=servers[1])
    await expect(other.questions).to_have_text(["with a slip", "what follows"])
    await tab.page.get_by_role("button", name="Edit message").first.click()
    box = tab.page.get_by_label("Edited message")
    await expect(box).to_be_focused()
    await expect(box).to_have_value("with a slip")
    await tab.page.keyboard.press("Escape")
    await expect(tab.questions).to_have_text(["with a slip", "what follows"])
    await tab.page.get_by_role("button", name="Edit message").first.press("Enter")
    await box.fill("mended")
    await tab.page.keyboard.press("Enter")
    for one in (tab, other):
        await expect(one.questions).to_have_text(["mended"])
        await expect(one.answer).to_have_text("echo: mended")
    await tab.page.reload()
    await expect(tab.questions).to_have_text(["mended"])
    await tab.ask("and on")
    await expect(tab.questions).to_have_text(["mended", "and on"])
    await expect(other.questions).to_have_text(["mended", "and on"])


async def test_a_regenerated_answer_takes_the_place_of_the_old_one(open_tab: OpenTab, provider: Any) -> None:
    name = f"f{uuid4().hex[:10]}"
    provider.script_tries(name, [text("a first try"), ok()], [text("a second try"), ok()])
    tab = await open_tab()
    await tab.ask(f"[[{name}]]")
    await expect(tab.answer).to_have_text("a first try")
    await tab.page.get_by_role("button", name="Regenerate answer").click()
    await expect(tab.answer).to_have_text("a second try")
    await expect(tab.answers).to_have_count(1)
    await tab.page.reload()
    await expect(tab.answers).to_have_count(1)
    await expect(tab.answer).to_have_text("a second try")


async def test_a_deleted_message_goes_from_every_tab_after_a_second_press(
    open_tab: OpenTab, servers: tuple[Server, Server]
) -> None:
    tab = await open_tab()
    await tab.ask("delete me")
    await expect(tab.answer).to_have_text("echo: delete me")
    other = await open_tab(path(tab), server=servers[1])
    await expect(other.questions).to_have_text(["delete me"])
    button = tab.page.get_by_role("button", name="Delete message")
    await button.click()
    really = tab.page.get_by_role("button", name="Delete for good?")
    await tab.page.get_by_label("Message", exact=True).focus()
    await expect(really).to_have_count(0)
    await expect(tab.questions).to_have_text(["delete me"])
    await button.press("Enter")
    await really.press("Enter")
    for one in (tab, other):
        await expect(one.questions).to_have_count(0)
        await expect(one.answer).to_have_text("echo: delete me")
    await expect(tab.page.get_by_label("Message", exact=True)).to_be_focused()
    await tab.page.reload()
    await expect(tab.answers).to_have_count(1)
    await expect(tab.questions).to_have_count(0)
