"""The documents panel: files and folders go in, their way is watched, and what fails says why."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.db.models import Q
from django.db.models.functions import Now
from playwright.async_api import Request, Route, expect

from accounts.access import workspace_for
from accounts.models import Membership, Role
from django_chain.embedded.valkey import Valkey
from kernel import database
from tests.conftest import Person, make_person
from tests.frontend.conftest import OpenTab, Panel, Tab, file
from tests.support.scripted_provider import Gate, ok, text, wait
from tests.support.server import Server, rest
from tests.support.stage import settings
from tests.support.worker import Worker
from vectorstore.manager import VectorStoreManager
from vectorstore.models import Document, DocumentState, IngestJob

WARRANTY = "# Aurora kettle\n\n## Warranty\n\nThe Aurora kettle has a warranty of three years.\n"
PAGE = "<!doctype html><title>Returns</title><main><h1>Returns</h1><p>Returns are free for 30 days.</p></main>"
BROKEN = b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog >>\nthis is cut off"
PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(64)
UPLOAD = re.compile(r"/documents(\?|$)")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of several kinds, in folders; some of them are nothing to be indexed."""
    shop = tmp_path / "shop"
    (shop / "tables").mkdir(parents=True)
    (shop / ".git").mkdir()
    (shop / "kettle.md").write_text(WARRANTY)
    (shop / "tables" / "prices.csv").write_text("article,price\nAurora kettle,49\nBoreas toaster,39\n")
    (shop / "returns.html").write_text(PAGE)
    (shop / "broken.pdf").write_bytes(BROKEN)
    (shop / "logo.png").write_bytes(PICTURE)
    (shop / ".git" / "config").write_text("not for readers")
    return shop


async def drop(tab: Tab, *paths: Path) -> None:
    """What a hand with a mouse does: files and folders from the desktop, onto the middle of the page."""
    session = await tab.page.context.new_cdp_session(tab.page)
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        await session.send("Input.dispatchDragEvent", {"type": kind, "x": 400, "y": 300, "data": data})
        if kind == "dragOver":
            await expect(tab.page.locator("#drop-sign")).to_be_visible()
    await expect(tab.page.locator("#drop-sign")).to_be_hidden()


async def queued(person: Person, *sources: str) -> list[Any]:
    """Documents that were taken in while no broker could be told."""
    workspace = await database.run(workspace_for, person.caller)
    manager = VectorStoreManager(workspace.id)
    made = [
        await manager.submit(source=source, name=source, content=f"The text of {source}.".encode(), tell=False)
        for source in sources
    ]
    return [each.document_id for each in made]


async def now(document_id: Any, state: DocumentState, **values: Any) -> None:
    """A worker has come so far with it."""
    await database.run(lambda: Document.objects.filter(pk=document_id).update(state=state, updated_at=Now(), **values))


@pytest.mark.parametrize("by", ["dropped", "chosen"])
async def test_a_folder_is_read_file_by_file(open_tab: OpenTab, worker: Worker, folder: Path, by: str) -> None:
    tab = await open_tab()
    panel = Panel(tab)
    if by == "dropped":
        await drop(tab, folder)
        await expect(panel.root).to_be_visible()
    else:
        await panel.open()
        await panel.root.get_by_label("Folder", exact=True).set_input_files(folder)
    await expect(panel.rows).to_have_count(4)
    for title in ("Aurora kettle", "prices", "Returns"):
        await expect(panel.row(title)).to_have_attribute("data-state", "ready")
    await expect(panel.rows.filter(has_text="shop/tables/prices.csv")).to_have_count(1)
    failed = panel.row("shop/broken.pdf")
    await expect(failed).to_have_attribute("data-state", "failed")
    await expect(failed.locator(".reason")).to_contain_text("damaged PDF")
    await expect(panel.problems).to_have_count(1)
    await expect(panel.problems).to_contain_text("shop/logo.png is a PNG picture")
    await expect(panel.counted).to_have_text("4 documents · 1 failed")
    await expect(panel.uploads).to_contain_text("4 files uploaded, 1 file not taken.")
    await panel.uploads.get_by_role("button", name="Dismiss").click()
    await expect(panel.uploads).to_be_hidden()
    await panel.row("Returns").get_by_role("button", name="Returns", exact=True).click()
    await expect(tab.page.get_by_role("dialog", name="Returns")).to_contain_text("Returns are free for 30 days.")


async def test_a_file_that_is_too_large_is_told_and_the_others_go(
    open_tab: OpenTab, spawn: Callable[..., Server]
) -> None:
    tab = await open_tab(server=spawn(env=settings(VECTOR_STORE={"MAX_DOCUMENT_BYTES": 2048})))
    panel = await Panel(tab).open()
    await expect(panel.root).to_contain_text("up to 2 KB each")
    await panel.choose(file("small.txt", "small"), file("large.txt", "x" * 3000), file("other.txt", "other"))
    await expect(panel.rows).to_have_count(2)
    await expect(panel.problems).to_have_text(["large.txt is larger than 2 KB."])
    # Again: the server knows them, and says so.
    await panel.choose(file("small.txt", "small"), file("new.txt", "new"))
    await expect(panel.rows).to_have_count(3)


async def test_many_files_go_in_parts_and_none_is_lost(open_tab: OpenTab, person: Person) -> None:
    tab = await open_tab()
    panel = await Panel(tab).open()
    posts: list[Request] = []
    tab.page.on("request", lambda request: posts.append(request) if request.method == "POST" else None)
    await panel.choose(*(file(f"note-{n}.txt", f"Note number {n}.") for n in range(75)))
    await expect(panel.counted).to_have_text(re.compile("^75 documents"))
    assert len(posts) == 4
    await expect(panel.rows).to_have_count(75)
    listed = rest(tab.server, person.token, "GET", "/collections/default/documents", params={"limit": 100})
    assert {row["source"] for row in listed["documents"]} == {f"note-{n}.txt" for n in range(75)}


async def test_a_busy_server_is_asked_again_when_it_says_so(open_tab: OpenTab) -> None:
    tab = await open_tab()
    panel = await Panel(tab).open()
    busy = {"code": "busy", "message": "The server has too much to do; try again shortly."}
    answers: list[dict[str, Any]] = [
        {"status": 503, "headers": {"Retry-After": "1"}, "json": busy},
        {"status": 429, "headers": {"Retry-After": "1"}, "json": busy},
    ]

    async def first_busy(route: Route) -> None:
        if route.request.method == "POST" and answers:
            await route.fulfill(**answers.pop(0))
        else:
            await route.continue_()

    await tab.page.route(UPLOAD, first_busy)
    await panel.choose(file("patient.txt", "Patience."))
    await expect(panel.uploads).to_contain_text("too much to do; try again shortly. Trying again in 1 second.")
    await expect(panel.row("patient.txt")).to_have_attribute("data-state", "queued")
    assert answers == []


async def test_who_sends_too_fast_sends_less_at_once_or_stops(open_tab: OpenTab) -> None:
    tab = await open_tab()
    panel = await Panel(tab).open()
    wait = {"seconds": "1"}

    async def strict(route: Route) -> None:
        if route.request.method == "POST" and (route.request.post_data_buffer or b"").count(b'name="files"') > 1:
            body = {"code": "busy", "message": "Too many at once."}
            await route.fulfill(status=429, headers={"Retry-After": wait["seconds"]}, json=body)
        else:
            await route.continue_()

    await tab.page.route(UPLOAD, strict)
    await panel.choose(file("one.txt", "one"), file("two.txt", "two"))
    await expect(panel.rows).to_have_count(2)
    wait["seconds"] = "50"
    await panel.choose(*(file(f"note-{n}.txt", f"Note number {n}.") for n in range(40)))
    await expect(panel.uploads).to_contain_text("Trying again in 50 seconds.")
    stop = panel.uploads.get_by_role("button", name="Stop")
    await stop.press("Enter")
    await expect(panel.uploads).to_be_hidden()
    await expect(panel.root.get_by_role("button", name="Choose files")).to_be_focused()
    await expect(panel.rows).to_have_count(2)


async def test_a_proxy_that_takes_less_than_we_send_gets_less(open_tab: OpenTab) -> None:
    tab = await open_tab()
    panel = await Panel(tab).open()

    async def narrow(route: Route) -> None:
        if route.request.method == "POST" and len(route.request.post_data_buffer or b"") > 5_000:
            await route.fulfill(status=413, body="<html>Request Entity Too Large</html>")
        else:
            await route.continue_()

    await tab.page.route(UPLOAD, narrow)
    await panel.choose(*(file(f"part-{n}.txt", f"{n} " * 900) for n in range(5)), file("wide.txt", "w" * 6_000))
    await expect(panel.rows).to_have_count(5)
    await expect(panel.problems).to_have_count(1)
    await expect(panel.problems).to_contain_text("wide.txt")
    await tab.page.unroute(UPLOAD)
    await panel.problems.get_by_role("button", name="Send again").click()
    await expect(panel.row("wide.txt")).to_have_attribute("data-state", "queued")
    await expect(panel.problems).to_have_count(0)


async def test_progress_is_shown_as_it_comes_and_nobody_asks_when_all_is_done(
    open_tab: OpenTab, person: Person
) -> None:
    [kettle, toaster] = await queued(person, "kettle.txt", "toaster.txt")
    tab = await open_tab()
    asked: list[str] = []
    tab.page.on("request", lambda request: asked.append(request.url))
    panel = await Panel(tab).open()
    row = panel.row("kettle.txt")
    await expect(row).to_contain_text("Queued")
    await now(kettle, DocumentState.EMBEDDING, done=3, total=12)
    await expect(row).to_contain_text("Embedding 3 of 12")
    bar = row.get_by_role("progressbar", name="kettle.txt: Embedding 3 of 12")
    assert await bar.evaluate("bar => [bar.value, bar.max]") == [3, 12]
    await now(kettle, DocumentState.READY, done=12, total=12, chunk_count=12)
    await now(toaster, DocumentState.FAILED, error_code="no_text", reason="toaster.txt has no text to index.")
    await expect(row).to_have_attribute("data-state", "ready")
    await expect(bar).to_be_hidden()
    await expect(panel.row("toaster.txt")).to_contain_text("has no text to index")
    await expect(panel.root.locator("#documents-news")).to_have_text(
        re.compile("toaster.txt failed|1 document ready, 1 document failed")
    )
    before = len(asked)
    # Longer than the longest time between two looks at a list of which something is unfinished.
    await tab.page.wait_for_timeout(2_500)
    assert len(asked) == before


async def test_without_a_worker_it_says_what_is_missing(
    open_tab: OpenTab, spawn: Callable[..., Server], tmp_path: Path, server_env: dict[str, str]
) -> None:
    with Valkey(tmp_path) as broker:
        server = spawn(env={"REDIS_URL": broker.url})
        tab = await open_tab("/accounts/email/", server=server)
        await tab.page.clock.install()
        await tab.visit()
        panel = await Panel(tab).open()
        await panel.choose(file("kettle.md", WARRANTY))
        await expect(panel.row("kettle.md")).to_have_attribute("data-state", "queued")
        waits = panel.root.get_by_text("Waiting for a worker to read them.")
        await expect(waits).to_be_hidden()
        for _ in range(4):
            async with tab.page.expect_response(UPLOAD):
                await tab.page.clock.fast_forward("00:10")
        await expect(waits).to_be_visible()
        with Worker(server_env | {"REDIS_URL": broker.url}):
            for _ in range(3):
                await tab.page.clock.fast_forward("00:10")
            await expect(panel.row("Aurora kettle")).to_have_attribute("data-state", "ready")
        await expect(waits).to_be_hidden()


async def test_what_failed_is_tried_again(open_tab: OpenTab, person: Person, worker: Worker) -> None:
    [document_id] = await queued(person, "kettle.txt")
    await now(document_id, DocumentState.FAILED, error_code="provider_unavailable", reason="The model was away.")
    await database.run(lambda: IngestJob.objects.filter(document_id=document_id).update(open=False))
    panel = await Panel(await open_tab()).open()
    await expect(panel.row("kettle.txt")).to_contain_text("The model was away.")
    await panel.root.get_by_role("button", name="Try kettle.txt again").click()
    await expect(panel.row("kettle")).to_have_attribute("data-state", "ready")
    await expect(panel.root.locator("#documents-news")).to_have_text("kettle is ready.")


async def test_a_long_list_is_read_page_by_page(open_tab: OpenTab, person: Person) -> None:
    names = [f"note-{n}.txt" for n in range(65)]
    ids = await queued(person, *names)
    await database.run(lambda: Document.objects.filter(~Q(pk=ids[0]), pk__in=ids).update(state=DocumentState.READY))
    panel = await Panel(await open_tab()).open()
    await expect(panel.rows).to_have_count(30)
    more = panel.root.get_by_role("button", name="Show more")
    await more.click()
    await expect(panel.rows).to_have_count(60)
    await more.click()
    await expect(panel.rows).to_have_count(65)
    await expect(more).to_be_hidden()
    titles = await panel.rows.locator(".title").all_text_contents()
    assert titles == names[::-1]
    # The last of the list is the one that a worker is at.
    await now(ids[0], DocumentState.EMBEDDING, done=1, total=2)
    await expect(panel.rows.last).to_contain_text("Embedding 1 of 2")


async def test_the_documents_of_others_are_not_shown(open_tab: OpenTab, person: Person) -> None:
    other = await database.run(make_person)
    await queued(other, "theirs.txt")
    await queued(person, "mine.txt")
    panel = await Panel(await open_tab()).open()
    await expect(panel.rows).to_have_count(1)
    await expect(panel.row("mine.txt")).to_be_visible()


async def test_who_may_only_read_is_told_so(
    open_tab: OpenTab, person: Person, servers: tuple[Server, Server], folder: Path
) -> None:
    owner = await database.run(make_person)
    shared = await database.run(workspace_for, owner.caller)
    membership = await database.run(
        lambda: Membership.objects.create(workspace=shared, user=person.user, role=Role.MEMBER)
    )
    await queued(owner, "shared.txt")
    # More than go in one request.
    for n in range(20):
        (folder / f"note-{n}.txt").write_text(f"Note number {n}.")
    session = person.new_session(servers[0], workspace=str(shared.pk))
    await database.run(lambda: Membership.objects.filter(pk=membership.pk).update(role=Role.VIEWER))
    tab = await open_tab(f"/c/{session}/")
    await tab.connected()
    await drop(tab, folder)
    panel = Panel(tab)
    await expect(panel.problems).to_have_count(1)
    await expect(panel.problems).to_contain_text("25 files: You can't write in that workspace.")
    await expect(panel.rows).to_have_count(1)
    await panel.root.get_by_role("button", name="Delete shared.txt").click()
    await panel.root.get_by_role("button", name="Delete shared.txt for good?").click()
    await expect(panel.root.get_by_role("alert")).to_have_text("You can't write in that workspace.")
    await expect(panel.rows).to_have_count(1)


async def test_everything_is_done_with_the_keyboard(open_tab: OpenTab, person: Person, provider: Any) -> None:
    await queued(person, "one.txt", "two.txt")
    gate = Gate()
    provider.script("held", text("It goes on"), wait(gate), ok())
    tab = await open_tab()
    await tab.ask("[[held]]")
    await expect(tab.answer).to_have_text("It goes on")
    panel = Panel(tab)
    keys = tab.page.keyboard
    await panel.button.focus()
    await keys.press("Enter")
    await expect(panel.root.get_by_role("button", name="Choose files")).to_be_focused()
    await expect(panel.rows).to_have_count(2)
    delete = panel.root.get_by_role("button", name="Delete two.txt")
    for _ in range(8):
        await keys.press("Tab")
        if await delete.evaluate("it => it === document.activeElement"):
            break
    await expect(delete).to_be_focused()
    await keys.press("Enter")
    # Going elsewhere takes the question back.
    await expect(panel.rows.first).to_contain_text("Delete for good?")
    await keys.press("Tab")
    await expect(panel.rows.first).not_to_contain_text("Delete for good?")
    await keys.press("Shift+Tab")
    await keys.press("Enter")
    await keys.press("Enter")
    await expect(panel.rows).to_have_count(1)
    await expect(panel.root.locator("#documents-news")).to_have_text("two.txt was deleted.")
    await expect(panel.root.get_by_role("button", name="Delete one.txt")).to_be_focused()
    await keys.press("Escape")
    await expect(panel.root).to_be_hidden()
    await expect(panel.button).to_be_focused()
    # It has closed the dialog, and the answer goes on.
    stopping = "import('/static/frontend/page.js').then(({page}) => page.client.store.stopping.size)"
    assert await tab.page.evaluate(stopping) == 0
    gate.release()
    await expect(tab.answers.last).to_have_attribute("data-status", "complete")


async def test_an_upload_goes_on_behind_a_shut_panel_and_says_when_it_is_done(open_tab: OpenTab) -> None:
    tab = await open_tab()
    panel = await Panel(tab).open()
    gate: list[Route] = []

    async def hold(route: Route) -> None:
        if route.request.method == "POST" and not gate:
            gate.append(route)
        else:
            await route.continue_()

    await tab.page.route(UPLOAD, hold)
    async with tab.page.expect_request(lambda request: request.method == "POST"):
        await panel.choose(file("kettle.md", WARRANTY))
    await tab.page.keyboard.press("Escape")
    await expect(panel.root).to_be_hidden()
    await expect(panel.button).to_have_class(re.compile("busy"))
    await gate[0].continue_()
    await expect(tab.page.locator("#state-news")).to_have_text("1 file uploaded.")
    await expect(panel.button).not_to_have_class(re.compile("busy"))


async def test_on_a_phone_it_fills_the_screen(open_tab: OpenTab, person: Person) -> None:
    await queued(person, f"{'a-very-long-name-without-a-space-' * 4}.txt")
    tab = await open_tab(viewport={"width": 360, "height": 640}, has_touch=True, is_mobile=True, color_scheme="dark")
    panel = await Panel(tab).open()
    await expect(panel.rows).to_have_count(1)
    widths = await panel.root.evaluate(
        "it => [it.getBoundingClientRect().width, it.querySelector('.room').scrollWidth]"
    )
    assert widths == [360, 360]
    await expect(panel.root.get_by_role("button", name="Close")).to_be_in_viewport(ratio=1)
