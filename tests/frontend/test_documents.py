"""The documents panel: files and folders go in, their way is watched, and what fails says why."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Locator, expect

from tests.frontend.conftest import OpenTab, Tab
from tests.support.worker import Worker

WARRANTY = "# Aurora kettle\n\n## Warranty\n\nThe Aurora kettle has a warranty of three years.\n"
PRICES = "article,price\nAurora kettle,49\nBoreas toaster,39\n"
PAGE = "<!doctype html><title>Returns</title><main><h1>Returns</h1><p>Returns are free for 30 days.</p></main>"
BROKEN = b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog >>\nthis is cut off"
PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(64)


@pytest.fixture(scope="module")
def worker(live_database: None, server_env: dict[str, str]) -> Iterator[Worker]:
    with Worker(server_env) as started:
        yield started


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of several kinds, in folders; some of them are nothing to be indexed."""
    shop = tmp_path / "shop"
    (shop / "tables").mkdir(parents=True)
    (shop / ".git").mkdir()
    (shop / "kettle.md").write_text(WARRANTY)
    (shop / "tables" / "prices.csv").write_text(PRICES)
    (shop / "returns.html").write_text(PAGE)
    (shop / "broken.pdf").write_bytes(BROKEN)
    (shop / "logo.png").write_bytes(PICTURE)
    (shop / ".git" / "config").write_text("not for readers")
    return shop


class Panel:
    """The dialog of a tab, and what a person looks for in it."""

    def __init__(self, tab: Tab) -> None:
        self.tab = tab
        self.root = tab.page.get_by_role("dialog", name="Documents")
        self.rows = self.root.locator(".document")
        self.problems = self.root.locator(".problems li")

    async def open(self) -> None:
        await self.tab.page.get_by_role("button", name="Documents", exact=True).click()
        await expect(self.root).to_be_visible()

    async def choose(self, *files: Any) -> None:
        await self.root.locator("#files-input").set_input_files(list(files))

    def row(self, title: str) -> Locator:
        return self.rows.filter(has=self.tab.page.get_by_role("button", name=title, exact=True))

    async def states(self, **expected: str) -> None:
        for title, state in expected.items():
            await expect(self.row(title.replace("_", " "))).to_have_attribute("data-state", state)


async def drop(tab: Tab, *paths: Path) -> None:
    """What a hand with a mouse does: files and folders from the desktop, onto the middle of the page."""
    session = await tab.page.context.new_cdp_session(tab.page)
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        await session.send("Input.dispatchDragEvent", {"type": kind, "x": 400, "y": 300, "data": data})
        if kind == "dragOver":
            await expect(tab.page.locator("#drop-sign")).to_be_visible()
    await expect(tab.page.locator("#drop-sign")).to_be_hidden()


async def test_a_dropped_folder_is_read_file_by_file(open_tab: OpenTab, worker: Worker, folder: Path) -> None:
    tab = await open_tab()
    panel = Panel(tab)
    await drop(tab, folder)
    await expect(panel.root).to_be_visible()
    await expect(panel.rows).to_have_count(4)
    await expect(panel.row("Aurora kettle")).to_have_attribute("data-state", "ready")
    await expect(panel.row("prices")).to_have_attribute("data-state", "ready")
    await expect(panel.row("Returns")).to_have_attribute("data-state", "ready")
    await expect(panel.row("shop/broken.pdf")).to_have_attribute("data-state", "failed")
    await expect(panel.row("shop/broken.pdf").locator(".reason")).to_contain_text("PDF")
    await expect(panel.problems).to_have_count(1)
    await expect(panel.problems).to_contain_text("shop/logo.png")
    await expect(panel.problems).to_contain_text("PNG picture")
    await expect(panel.root.locator("#documents-count")).to_have_text("4 documents · 1 failed")
    await shoot(tab, "panel")
    await tab.page.set_viewport_size({"width": 360, "height": 700})
    await shoot(tab, "panel-360")


async def shoot(tab: Tab, name: str) -> None:
    if at := os.environ.get("SHOTS"):
        await tab.page.screenshot(path=f"{at}/{name}.png")
