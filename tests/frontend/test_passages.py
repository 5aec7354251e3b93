"""A citation opens its document at the passage, wherever that is by now."""

from typing import Any

from playwright.async_api import Locator, expect

from accounts.access import workspace_for
from accounts.models import Membership, Role
from kernel import database
from tests.conftest import Person, make_person
from tests.frontend.conftest import OpenTab, Panel, Tab, file
from tests.support.scripted_provider import ok, text
from tests.support.server import Server, rest
from tests.support.worker import Worker
from vectorstore.manager import VectorStoreManager
from vectorstore.values import SourceDocument

#: Each is one code point or several, and two or more units of a JavaScript string.
EMOJI = "🙂🏳️‍🌈👩‍🚀𝄞"
WARRANTY = "The Aurora kettle has a warranty of three years 🙂, counted from the day of purchase."
FILLER = [f"## Part {n} {EMOJI}\n\nNothing in particular.{' It goes on and on.' * 20}" for n in range(80)]


def manual(at: int, passage: str = f"## Warranty\n\n{WARRANTY}") -> str:
    return "\n\n".join(["# Aurora manual", *FILLER[:at], passage, *FILLER[at:]])


async def ingest(person: Person, source: str, content: str) -> None:
    workspace = await database.run(workspace_for, person.caller)
    await VectorStoreManager(workspace.id).ingest([SourceDocument(source=source, text=content, markdown=True)])


async def cited(tab: Tab, provider: Any, name: str = "cited") -> Locator:
    """Ask for the warranty; the first citation of the answer."""
    provider.script(name, text("Three years [1]."), ok())
    await tab.ask(f"How long is the warranty of the Aurora kettle? [[{name}]]")
    await expect(tab.answers.last).to_have_attribute("data-status", "complete")
    return tab.answer.get_by_role("button", name="Source 1", exact=False)


async def follow(tab: Tab, mark: Locator) -> Locator:
    """From the mark through the passage to its document; the dialog."""
    await mark.click()
    await tab.answers.last.get_by_role("button", name="Open in the document").click()
    reader = tab.page.locator("#reader")
    await expect(reader).to_be_visible()
    return reader


async def test_a_citation_opens_its_document_at_the_passage(open_tab: OpenTab, person: Person, provider: Any) -> None:
    await ingest(person, "manual.md", manual(40))
    tab = await open_tab()
    reader = await follow(tab, await cited(tab, provider))
    mark = reader.locator("mark")
    await expect(mark).to_have_text(f"## Warranty\n\n{WARRANTY}", use_inner_text=True)
    await expect(mark).to_be_in_viewport(ratio=1)
    await expect(mark).to_be_focused()
    await expect(reader.get_by_role("heading")).to_have_text("Aurora manual")
    shown = await reader.locator("#reader-text").inner_text()
    before, _, after = shown.partition(WARRANTY)
    assert before.rstrip().endswith("## Warranty")
    assert FILLER[39].strip() in before
    assert after.lstrip().startswith(FILLER[40][:40])
    await tab.page.keyboard.press("Escape")
    await expect(reader).to_be_hidden()
    await expect(tab.answers.last.get_by_role("button", name="Open in the document")).to_be_focused()


async def test_a_long_text_is_read_on_in_both_directions(open_tab: OpenTab, person: Person, provider: Any) -> None:
    await ingest(person, "manual.md", manual(40))
    tab = await open_tab()
    reader = await follow(tab, await cited(tab, provider))
    words, mark = reader.locator("#reader-text"), reader.locator("mark")
    await expect(mark).to_be_in_viewport(ratio=1)
    before = reader.get_by_role("button", name="Show what comes before")
    top = await before.evaluate("it => it.nextElementSibling.firstChild.getBoundingClientRect().top")
    # Twice, as impatient people do.
    await before.evaluate("it => { it.click(); it.click(); }")
    await expect(words.locator("> span")).to_have_count(2)
    # What is read stays in its place.
    assert abs(await words.evaluate("it => it.lastChild.getBoundingClientRect().top") - top) < 40
    await read_on(words, before)
    await expect(words).to_contain_text("# Aurora manual")
    await read_on(words, reader.get_by_role("button", name="Show more"))
    assert await words.evaluate("it => it.textContent") == manual(40)


async def read_on(words: Locator, button: Locator) -> None:
    """Press it until there is no more."""
    while await button.is_visible():
        parts = await words.locator("> span").count()
        await button.click()
        await expect(words.locator("> span")).to_have_count(parts + 1)


async def test_a_passage_that_has_moved_is_found_where_it_is_now(
    open_tab: OpenTab, person: Person, provider: Any
) -> None:
    await ingest(person, "manual.md", manual(3))
    tab = await open_tab()
    mark = await cited(tab, provider)
    await ingest(person, "manual.md", manual(5))
    reader = await follow(tab, mark)
    await expect(reader.locator("mark")).to_have_text(f"## Warranty\n\n{WARRANTY}", use_inner_text=True)
    await tab.page.keyboard.press("Escape")
    await ingest(person, "manual.md", manual(3, "There is no such promise."))
    await tab.answers.last.get_by_role("button", name="Open in the document").click()
    await expect(reader.get_by_role("status")).to_contain_text("The document has changed since")
    await expect(reader.locator("#reader-text")).to_contain_text(FILLER[3].strip())
    await expect(reader.locator("mark")).to_have_count(0)


async def test_a_text_that_has_become_short_is_shown_from_its_beginning(
    open_tab: OpenTab, person: Person, provider: Any
) -> None:
    await ingest(person, "manual.md", manual(79))
    tab = await open_tab()
    mark = await cited(tab, provider)
    await ingest(person, "manual.md", "# Aurora manual\n\nIt is being written anew.")
    reader = await follow(tab, mark)
    await expect(reader.locator("#reader-text")).to_contain_text("being written anew")


async def test_uploaded_asked_read_and_deleted(
    open_tab: OpenTab, person: Person, provider: Any, worker: Worker
) -> None:
    tab = await open_tab()
    panel = await Panel(tab).open()
    await panel.choose(file("kettle.md", f"# Aurora kettle\n\n{EMOJI}\n\n{WARRANTY}\n"))
    await expect(panel.row("Aurora kettle")).to_have_attribute("data-state", "ready")
    await tab.page.keyboard.press("Escape")
    reader = await follow(tab, await cited(tab, provider))
    await expect(reader.locator("mark")).to_contain_text(WARRANTY)
    await tab.page.keyboard.press("Escape")

    await panel.open()
    await panel.root.get_by_role("button", name="Delete Aurora kettle").click()
    await panel.root.get_by_role("button", name="Delete Aurora kettle for good?").click()
    await expect(panel.rows).to_have_count(0)
    found = rest(tab.server, person.token, "POST", "/search", json={"query": "warranty of the Aurora kettle"})
    assert found == {"hits": []}
    await tab.page.keyboard.press("Escape")
    await tab.answers.last.get_by_role("button", name="Open in the document").click()
    await expect(reader.get_by_role("status")).to_have_text("This document was deleted.")
    await tab.page.keyboard.press("Escape")
    await tab.ask("How long is the warranty of the Aurora kettle, once more? [[cited]]")
    await expect(tab.answers).to_have_count(2)
    await expect(tab.answers.last).to_have_attribute("data-status", "complete")
    await expect(tab.answers.last.locator(".chip")).to_have_count(0)


async def test_a_citation_in_a_shared_workspace_opens_its_document(
    open_tab: OpenTab, person: Person, provider: Any, servers: tuple[Server, Server]
) -> None:
    owner = await database.run(make_person)
    shared = await database.run(workspace_for, owner.caller)
    await database.run(lambda: Membership.objects.create(workspace=shared, user=person.user, role=Role.MEMBER))
    await ingest(owner, "manual.md", manual(2))
    session = person.new_session(servers[0], workspace=str(shared.pk))
    tab = await open_tab(f"/c/{session}/")
    reader = await follow(tab, await cited(tab, provider))
    await expect(reader.locator("mark")).to_contain_text(WARRANTY)


async def test_places_are_counted_in_code_points(open_tab: OpenTab) -> None:
    tab = await open_tab()
    text = f"passage 🙂{EMOJI} and passage 🙂{EMOJI} and passage 🙂."
    words, second = "passage 🙂", len(f"passage 🙂{EMOJI} and ")

    async def found(begin: int, hit: dict[str, Any]) -> list[int] | None:
        """Where a hit is shown, in code points of the text, when a part from `begin` on was read."""
        place: list[int] | None = await tab.page.evaluate(
            """async ([text, hit, start]) => {
                const {placeOf, unitOf} = await import("/static/frontend/places.js");
                const part = {text: [...text].slice(start).join(""), start};
                const place = placeOf(hit, part);
                return place && place.map((at) => [...part.text.slice(0, at)].length + start);
            }""",
            [text, hit, begin],
        )
        return place

    span = {"start": second, "end": second + len(words)}
    for begin in (0, 1, 9, second):
        assert await found(begin, span | {"text": words}) == [second, second + len(words)]
        assert await found(begin, span) == [second, second + len(words)]
    # The text has grown by some characters since: the nearest place is meant.
    assert await found(0, {"start": second - 4, "end": second - 4 + len(words), "text": words}) == [*span.values()]
    assert await found(0, {"start": second + 3, "end": second + 3 + len(words), "text": words}) == [*span.values()]
    assert await found(0, {"start": 0, "end": 4, "text": "gone"}) is None
    assert await found(0, {"start": 900, "end": 950}) is None
