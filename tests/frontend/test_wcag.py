"""WCAG 2.1 A and AA on every page and in each of its states, as axe sees it: wide and narrow, light and dark."""

import re
from typing import Any, Literal

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page, Route, expect

from tests.conftest import Person
from tests.frontend.conftest import OpenTab, Panel, Tab, file
from tests.frontend.test_documents import PICTURE, now, queued
from tests.frontend.test_passages import follow, ingest, manual
from tests.support.scripted_provider import Gate, ok, status, text, wait
from vectorstore.models import DocumentState

RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"], "resultTypes": ["violations"]}
#: 320 is the narrowest that WCAG asks for: a window of 1280 pixels, magnified four times.
WIDTHS = (1280, 320)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")

MARKDOWN = """# A heading

Words with `code`, a [link](https://example.org/a), **weight**, and a source [1].

> Quoted, *with care*.

1. one
2. two

| left | right |
|---|---:|
| a cell with many words in it | a_word_that_is_wider_than_a_narrow_window |

```python
print("a line of code that is longer than a narrow window is wide, so that it has to be scrolled sideways")
```

"""


async def accessible(page: Page, widths: tuple[int, ...] = WIDTHS) -> None:
    """axe has nothing to say of the page as it stands, and nothing on it is wider than its window."""
    for width in widths:
        await page.set_viewport_size({"width": width, "height": 800})
        for scheme in SCHEMES:
            await page.emulate_media(color_scheme=scheme)
            found = await Axe().run(page, options=RULES)
            assert found.violations_count == 0, f"{scheme}, {width} px: {found.generate_report()}"
        assert await page.evaluate("document.documentElement.scrollWidth") <= width
    await page.set_viewport_size({"width": WIDTHS[0], "height": 800})


@pytest.mark.parametrize(
    "path", ["accounts/login", "accounts/signup", "accounts/password/reset", "accounts/password/reset/done", "missing"]
)
async def test_pages_for_those_who_are_not_signed_in(stranger: Tab, path: str) -> None:
    await stranger.visit(f"/{path}/")
    await expect(stranger.page.get_by_role("heading", level=1)).to_be_visible()
    await accessible(stranger.page)
    await stranger.check()


async def test_a_sign_in_that_was_refused(stranger: Tab) -> None:
    await stranger.visit("/accounts/login/")
    await stranger.page.get_by_label(re.compile("username", re.IGNORECASE)).fill("nobody-of-that-name")
    await stranger.page.get_by_label("Password").fill("wrong")
    await stranger.page.get_by_role("button", name="Sign In").click()
    await expect(stranger.page.get_by_role("alert")).to_be_visible()
    await accessible(stranger.page)
    await stranger.check()


async def test_a_sign_up_that_was_refused_names_the_fault_at_its_field(stranger: Tab) -> None:
    await stranger.visit("/accounts/signup/")
    await stranger.page.get_by_label("Email").fill("someone@example.org")
    name = stranger.page.get_by_label("Username")
    await name.fill("someone new")
    for secret in await stranger.page.locator("input[type=password]").all():
        await secret.fill("correct horse")
    await stranger.page.get_by_role("button", name="Sign Up").click()
    await expect(name).to_have_accessible_description(re.compile("Enter a valid username"))
    await expect(name).to_have_attribute("aria-invalid", "true")
    await accessible(stranger.page)
    await stranger.check()


async def test_account_pages(open_tab: OpenTab) -> None:
    tab = await open_tab("/accounts/email/")
    await accessible(tab.page)
    for path in ("password/change", "logout"):
        await tab.visit(f"/accounts/{path}/")
        await accessible(tab.page)


async def test_an_empty_conversation_and_the_list_beside_it(open_tab: OpenTab) -> None:
    tab = await open_tab()
    await expect(tab.page.locator("#empty")).to_be_visible()
    await accessible(tab.page)
    await tab.ask("hello")
    await expect(tab.answer).to_contain_text("hello")
    await tab.page.get_by_role("link", name="New conversation").click()
    await tab.page.set_viewport_size({"width": 320, "height": 640})
    await tab.page.get_by_role("button", name="Conversations").click()
    await expect(tab.page.get_by_role("button", name="Sign out")).to_be_in_viewport()
    await accessible(tab.page, WIDTHS[1:])


async def test_an_answer_from_waiting_to_its_sources(open_tab: OpenTab, person: Person, provider: Any) -> None:
    await ingest(person, "manual.md", manual(5))
    begin, middle = Gate(), Gate()
    provider.script("shown", wait(begin), text(MARKDOWN), wait(middle), text("1. the end"), ok())
    tab = await open_tab()
    await tab.ask("How long is the warranty of the Aurora kettle? [[shown]]")
    answer = tab.answers.last
    await expect(answer.locator(".state")).to_be_visible()
    await accessible(tab.page)
    begin.release()
    await expect(tab.answer.locator("pre")).to_be_visible()
    await accessible(tab.page)
    middle.release()
    await expect(answer).to_have_attribute("data-status", "complete")
    await accessible(tab.page)
    await tab.answer.get_by_role("button", name="Source 1", exact=False).click()
    await expect(answer.locator(".passage")).to_be_visible()
    await tab.page.get_by_role("button", name="Edit message").click()
    await expect(tab.page.get_by_label("Edited message")).to_be_visible()
    await accessible(tab.page)


async def test_what_went_wrong(open_tab: OpenTab, provider: Any) -> None:
    provider.script("broken", status(401))
    tab = await open_tab()
    await tab.ask("[[broken]]")
    await expect(tab.answers.last.get_by_role("alert")).to_be_visible()
    await accessible(tab.page)

    async def away(route: Route) -> None:
        await route.fulfill(status=503, json={"code": "unavailable", "message": "Away for a moment."})

    await tab.page.route("**/api/v1/sessions*", away)
    await tab.page.get_by_role("link", name="New conversation").click()
    await tab.ask("not taken")
    await expect(tab.page.get_by_text("Not sent: Away for a moment.")).to_be_visible()
    await tab.page.evaluate("dispatchEvent(new Event('focus'))")
    await expect(tab.page.locator("#alert")).to_be_visible()
    await accessible(tab.page)


async def test_documents_in_every_state(open_tab: OpenTab, person: Person) -> None:
    panel = await Panel(await open_tab()).open()
    await expect(panel.root).to_contain_text("Nothing here yet")
    await accessible(panel.page)
    [_, reading, embedding, ready, failed, kept] = await queued(person, *"abcdef")
    await now(reading, DocumentState.PARSING)
    await now(embedding, DocumentState.EMBEDDING, done=3, total=12)
    await now(ready, DocumentState.READY, chunk_count=12)
    await now(failed, DocumentState.FAILED, error_code="no_text", reason="It has no text to index.")
    await now(kept, DocumentState.FAILED, error_code="no_text", reason="It has no text any more.", chunk_count=2)
    await panel.page.reload()
    await panel.open()
    await expect(panel.rows).to_have_count(6)
    await panel.choose(file("logo.png", PICTURE))
    await expect(panel.problems).to_have_count(1)
    await panel.root.get_by_role("button", name="Delete d", exact=True).click()
    await accessible(panel.page)


async def test_a_document_opened_at_a_passage(open_tab: OpenTab, person: Person, provider: Any) -> None:
    await ingest(person, "manual.md", manual(40))
    provider.script("cited", text("Three years [1]."), ok())
    tab = await open_tab()
    await tab.ask("How long is the warranty of the Aurora kettle? [[cited]]")
    await expect(tab.answers.last).to_have_attribute("data-status", "complete")
    reader = await follow(tab, tab.answer.get_by_role("button", name="Source 1", exact=False))
    await expect(reader.locator("mark")).to_be_visible()
    await accessible(tab.page)
