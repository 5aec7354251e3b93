"""Without a mouse: Tab reaches everything, one sees where one is, and nothing that vanishes takes the focus along."""

from collections.abc import Callable
from typing import Any

from playwright.async_api import FloatRect, Page, Route, expect

from chat import sessions
from kernel import database
from tests.conftest import Person
from tests.frontend.conftest import OpenTab, Panel, Tab, file
from tests.frontend.test_documents import UPLOAD, now, queued
from tests.frontend.test_passages import ingest, manual
from tests.frontend.test_wcag import MARKDOWN
from tests.support.scripted_provider import Gate, ok, text, wait
from tests.support.server import Server
from vectorstore.models import DocumentState, IngestJob

#: What a hand with a mouse could press, on the page or in the dialog that is above it.
COLLECT = """() => {
    const top = [...document.querySelectorAll("dialog[open]")].at(-1) ?? document.body;
    const hand = (it) => getComputedStyle(it).cursor === "pointer";
    const pressed = (it) => it.matches("a[href], :enabled") || (hand(it) && !hand(it.parentElement));
    const shown = (it) => it.checkVisibility({visibilityProperty: true}) && !it.closest("[inert]");
    window.targets = new Set([...top.querySelectorAll("*")].filter((it) => shown(it) && pressed(it)));
    window.reached = new Set();
    return targets.size;
}"""
#: Where the focus is, or null when Tab has gone round.
STEP = """() => {
    const it = document.activeElement;
    if (reached.has(it)) return null;
    reached.add(it);
    targets.delete(it);
    const {left, top, right, bottom} = it.getBoundingClientRect();
    const [x, y] = [Math.max(0, left - 6), Math.max(0, top - 6)];
    const clip = {x, y, width: Math.min(innerWidth, right + 6) - x, height: Math.min(innerHeight, bottom + 6) - y};
    return {name: it.outerHTML.slice(0, 100), body: it === document.body, clip};
}"""


async def walk(page: Page) -> None:
    """Tab goes round and comes by everything that can be pressed; each time the focus is seen."""
    assert await page.evaluate(COLLECT) > 0
    await page.evaluate("document.activeElement.blur()")
    for _ in range(100):
        await page.keyboard.press("Tab")
        at = await page.evaluate(STEP)
        if at is None:
            break
        if not at["body"]:
            assert await shows(page, at["clip"]), at["name"]
    assert await page.evaluate("[...targets].map((it) => it.outerHTML.slice(0, 100))") == []


async def shows(page: Page, clip: FloatRect) -> bool:
    """Whether there is a difference to be seen when the focus goes."""
    focused = await page.screenshot(clip=clip)
    element = await page.evaluate_handle("document.activeElement")
    await element.evaluate("(it) => it.blur()")
    left = await page.screenshot(clip=clip)
    await element.evaluate("(it) => it.focus({preventScroll: true, focusVisible: true})")
    return focused != left


async def away(route: Route) -> None:
    await route.fulfill(status=503, json={"code": "unavailable", "message": "Away for a moment."})


async def asked(tab: Tab, person: Person, provider: Any) -> None:
    """An answer with everything in it that an answer can have."""
    await ingest(person, "manual.md", manual(5))
    provider.script("all", text(MARKDOWN), ok())
    await tab.ask("How long is the warranty of the Aurora kettle? [[all]]")
    await expect(tab.answers.last).to_have_attribute("data-status", "complete")


async def test_tab_goes_through_the_sign_in_page(stranger: Tab) -> None:
    for path in ("login", "signup"):
        await stranger.visit(f"/accounts/{path}/")
        await walk(stranger.page)


async def test_tab_goes_through_a_conversation_and_its_list(open_tab: OpenTab, person: Person, provider: Any) -> None:
    tab = await open_tab()
    await expect(tab.page.locator("#empty")).to_be_visible()
    await walk(tab.page)
    await asked(tab, person, provider)
    await tab.answer.get_by_role("button", name="Source 1", exact=False).press("Enter")
    await expect(tab.answers.last.locator(".passage")).to_be_focused()
    await tab.page.get_by_label("Message", exact=True).fill("a draft")
    await walk(tab.page)


async def test_tab_goes_through_the_drawer_and_not_behind_it(open_tab: OpenTab) -> None:
    tab = await open_tab(viewport={"width": 390, "height": 760})
    await tab.ask("hello")
    await expect(tab.answers.last).to_have_attribute("data-status", "complete")
    await walk(tab.page)
    await tab.page.get_by_role("button", name="Conversations").press("Enter")
    await expect(tab.page.get_by_role("link", name="New conversation")).to_be_focused()
    await walk(tab.page)


async def test_tab_goes_through_the_documents_and_the_reader_above_them(open_tab: OpenTab, person: Person) -> None:
    await ingest(person, "manual.md", manual(40))
    [document_id] = await queued(person, "failed.txt")
    await now(document_id, DocumentState.FAILED, error_code="no_text", reason="It has no text to index.")
    tab = await open_tab()
    panel = await Panel(tab).open()
    await expect(panel.rows).to_have_count(2)
    await panel.choose(file("logo.png", b"\x89PNG\r\n\x1a\n" + bytes(64)))
    await expect(panel.problems).to_have_count(1)
    await walk(tab.page)
    title = panel.root.get_by_role("button", name="Aurora manual", exact=True)
    await title.press("Enter")
    reader = tab.page.get_by_role("dialog", name="Aurora manual")
    await expect(reader.locator("#reader-scroller")).to_be_focused()
    await walk(tab.page)
    await reader.get_by_role("button", name="Close").press("Enter")
    await expect(title).to_be_focused()
    await panel.root.get_by_role("button", name="Close").press("Enter")
    await expect(panel.button).to_be_focused()


async def test_a_passage_is_opened_read_and_left_with_keys_and_is_seen_to_have_the_focus(
    open_tab: OpenTab, person: Person, provider: Any
) -> None:
    tab = await open_tab()
    await asked(tab, person, provider)
    keys = tab.page.keyboard
    mark = tab.answer.get_by_role("button", name="Source 1", exact=False)
    await mark.press("Enter")
    await keys.press("Tab")
    await expect(tab.page.get_by_role("button", name="Close the source")).to_be_focused()
    opens = tab.page.get_by_role("button", name="Open in the document")
    await keys.press("Tab")
    await expect(opens).to_be_focused()
    await keys.press("Enter")
    passage = tab.page.locator("#reader mark")
    await expect(passage).to_be_focused()
    box = await passage.bounding_box()
    assert box is not None
    assert await shows(tab.page, {key: box[key] for key in ("x", "y", "width", "height")})  # type: ignore[arg-type, misc]
    await keys.press("Escape")
    await expect(opens).to_be_focused()
    await tab.answers.last.locator(".passage").press("Escape")
    await expect(mark).to_be_focused()


async def test_what_one_has_dismissed_leaves_the_focus_in_the_message_box(open_tab: OpenTab) -> None:
    tab = await open_tab()
    box = tab.page.get_by_label("Message", exact=True)
    await tab.page.route("**/api/v1/sessions*", away)
    await tab.page.evaluate("dispatchEvent(new Event('focus'))")
    await tab.page.get_by_role("button", name="Dismiss").press("Enter")
    await expect(box).to_be_focused()
    await tab.ask("not taken")
    for button in ("Try again", "Delete"):
        await tab.page.get_by_role("button", name=button).press("Enter")
        await expect(box).to_be_focused()
    await expect(tab.questions).to_have_count(0)


async def test_a_connection_that_is_back_leaves_the_focus_in_the_message_box(
    open_tab: OpenTab, spawn: Callable[..., Server]
) -> None:
    server = spawn()
    tab = await open_tab(server=server)
    await tab.ask("before")
    await expect(tab.answer).to_contain_text("echo: before")
    server.kill()
    again = tab.page.get_by_role("button", name="Retry now")
    await again.press("Enter")
    await expect(tab.page.get_by_label("Message", exact=True)).to_be_focused()
    await expect(again).to_be_visible()
    await again.focus()
    server.start()
    await tab.page.evaluate("document.getElementById('retry').click()")
    await tab.connected()
    await expect(tab.page.get_by_label("Message", exact=True)).to_be_focused()


async def test_the_rest_of_the_conversations_takes_the_focus_when_the_button_goes(
    open_tab: OpenTab, person: Person
) -> None:
    made = [await database.run(sessions.create_session, person.caller) for _ in range(32)]
    tab = await open_tab()
    await tab.page.get_by_role("navigation").get_by_role("button", name="Show more").press("Enter")
    links = tab.page.get_by_role("navigation").get_by_role("link")
    await expect(links).to_have_count(len(made))
    await expect(links.nth(30)).to_be_focused()


async def test_buttons_of_documents_that_go_hand_on_the_focus(open_tab: OpenTab, person: Person) -> None:
    [oldest, *_] = await queued(person, *(f"note-{n}.txt" for n in range(31)))
    await now(oldest, DocumentState.FAILED, error_code="provider_unavailable", reason="The model was away.")
    await database.run(lambda: IngestJob.objects.filter(document_id=oldest).update(open=False))
    tab = await open_tab()
    panel = await Panel(tab).open()
    await panel.root.get_by_role("button", name="Show more").press("Enter")
    again = panel.root.get_by_role("button", name="Try note-0.txt again")
    await expect(again).to_be_focused()
    await again.press("Enter")
    await expect(panel.root.get_by_role("button", name="Delete note-0.txt")).to_be_focused()

    await tab.page.route(
        UPLOAD, lambda route: route.fulfill(status=413) if route.request.method == "POST" else route.continue_()
    )
    await panel.choose(file("wide.txt", "wide"))
    send = panel.problems.get_by_role("button", name="Send again")
    await expect(send).to_be_visible()
    await tab.page.unroute(UPLOAD)
    await send.press("Enter")
    await expect(panel.root.get_by_role("button", name="Choose files")).to_be_focused()


async def test_what_is_being_written_leaves_the_focus_where_it_is(open_tab: OpenTab, provider: Any) -> None:
    gate = Gate()
    provider.script("linked", text("See [this](https://example.org/a) "), wait(gate), text("and so on."), ok())
    tab = await open_tab()
    await tab.ask("[[linked]]")
    link = tab.answer.get_by_role("link", name="this")
    await link.focus()
    gate.release()
    await expect(tab.answer).to_have_text("See this and so on.")
    await expect(tab.answers.last).to_have_attribute("data-status", "complete")
    await expect(link).to_be_focused()
    # Sources came: its marks are drawn anew, and so is all of it.
    assert (
        await tab.page.evaluate(
            """async () => {
            const {MarkdownView} = await import("/static/frontend/markdown-dom.js");
            const view = new MarkdownView(document.body.appendChild(document.createElement("div")));
            view.update("[one](https://example.org/1) and [two](https://example.org/2)");
            view.root.lastChild.lastChild.focus();
            view.clear();
            view.update("[one](https://example.org/1) and [two](https://example.org/2), and more");
            return document.activeElement.textContent;
        }"""
        )
        == "two"
    )
