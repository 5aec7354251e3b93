"""The passages behind an answer: named, linked from the text, opened."""

from typing import Any

from playwright.async_api import expect

from accounts.access import workspace_for
from kernel import database
from tests.conftest import Person
from tests.frontend.conftest import OpenTab
from tests.support.scripted_provider import ok, text
from vectorstore.manager import VectorStoreManager
from vectorstore.values import SourceDocument

MANUAL = "# Aurora kettle\n\n## Warranty\n\nThe Aurora kettle has a warranty of three years. <b>Keep</b> the receipt.\n"


async def test_sources_open_from_the_chip_and_from_the_mark(open_tab: OpenTab, person: Person, provider: Any) -> None:
    workspace = await database.run(workspace_for, person.caller)
    await VectorStoreManager(workspace.id).ingest([SourceDocument(source="kettle.md", text=MANUAL, markdown=True)])
    provider.script("cited", text("Three years [1], and not [7]."), ok())
    tab = await open_tab()
    await tab.ask("How long is the warranty of the Aurora kettle? [[cited]]")
    await expect(tab.answer).to_have_text("Three years 1, and not.")
    chip = tab.answers.last.get_by_role("button", name="Aurora kettle", exact=False).and_(tab.page.locator(".chip"))
    passage = tab.answers.last.locator(".passage")
    await expect(passage).to_be_hidden()
    await chip.click()
    await expect(passage).to_contain_text("three years. <b>Keep</b> the receipt")
    await expect(chip).to_have_attribute("aria-expanded", "true")
    await expect(passage).to_be_focused()
    await tab.page.keyboard.press("Escape")
    await expect(passage).to_be_hidden()
    await expect(chip).to_be_focused()
    mark = tab.answer.get_by_role("button", name="Source 1: Aurora kettle")
    await mark.click()
    await expect(passage).to_be_visible()
    await tab.page.reload()
    await tab.answer.get_by_role("button", name="Source 1: Aurora kettle").click()
    await expect(tab.answers.last.locator(".passage")).to_contain_text("three years")
