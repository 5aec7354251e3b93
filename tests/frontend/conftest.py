"""A real browser at a real server. Every page is watched: no script error, no policy violation, no foreign request."""

import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.test import Client as Visitor
from playwright.async_api import Browser, BrowserContext, FilePayload, Locator, Page, async_playwright, expect

from tests.conftest import Person
from tests.support.server import Server
from tests.support.worker import Worker

CANDIDATES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-dev-shm-usage",
)
DEADLINE = 15_000

#: What the page reports of itself: violations of its policy, and any script that came with a text.
WATCH = """
window.violations = [];
addEventListener("securitypolicyviolation", (e) => violations.push(`${e.violatedDirective}: ${e.blockedURI}`));
"""


def find_chromium(bundled: str) -> str | None:
    """The browser named in CHROMIUM, an installed one, or the one that Playwright has downloaded."""
    given = os.environ.get("CHROMIUM")
    installed = next((found for name in CANDIDATES if (found := shutil.which(name))), None)
    return given or installed or (bundled if Path(bundled).exists() else None)


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        executable = find_chromium(playwright.chromium.executable_path)
        if executable is None:
            pytest.skip("No Chromium: install one (apt install chromium) or name it in CHROMIUM.")
        expect.set_options(timeout=DEADLINE)
        chromium = await playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield chromium
        await chromium.close()


@dataclass
class Tab:
    """A page at a server, and the things on it that a person looks for."""

    page: Page
    server: Server
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(DEADLINE)
        self.page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        self.page.on("dialog", lambda dialog: self.problems.append(f"dialog: {dialog.message}"))
        self.page.on("request", lambda request: self._check_address(request.url))

    def _check_address(self, url: str) -> None:
        if urlsplit(url).scheme != "data" and urlsplit(url).netloc != urlsplit(self.server.url).netloc:
            self.problems.append(f"foreign request: {url}")

    async def visit(self, path: str = "/") -> None:
        await self.page.goto(self.server.url + path)

    async def ask(self, text: str) -> None:
        # Scripts are at work once there is either a message or the words for none.
        await expect(self.page.locator("#empty:not([hidden]), .message").first).to_be_attached()
        await self.page.get_by_label("Message", exact=True).fill(text)
        await self.page.keyboard.press("Enter")

    @property
    def answers(self) -> Locator:
        return self.page.locator(".message.assistant")

    @property
    def answer(self) -> Locator:
        return self.answers.last.locator(".body")

    @property
    def questions(self) -> Locator:
        return self.page.locator(".message.user .body")

    @property
    def stop(self) -> Locator:
        return self.page.get_by_role("button", name="Stop")

    async def connected(self) -> None:
        await expect(self.page.locator("#status")).to_have_attribute("data-state", "connected")

    async def check(self) -> None:
        """Nothing went wrong behind the page's back."""
        self.problems += await self.page.evaluate("window.violations")
        assert self.problems == []


OpenTab = Callable[..., Awaitable[Tab]]


class Panel:
    """The dialog with the documents, and what a person looks for in it."""

    def __init__(self, tab: Tab) -> None:
        self.page = tab.page
        self.button = tab.page.get_by_role("button", name="Documents", exact=True)
        self.root = tab.page.get_by_role("dialog", name="Documents")
        self.rows = self.root.locator(".document")
        self.counted = self.root.locator("#documents-count")
        self.uploads = self.root.get_by_role("region", name="Uploads")
        self.problems = self.uploads.locator("li")

    async def open(self) -> Self:
        await self.button.click()
        await expect(self.root).to_be_visible()
        return self

    async def choose(self, *files: FilePayload) -> None:
        await self.root.get_by_label("Files", exact=True).set_input_files(list(files))

    def row(self, title: str) -> Locator:
        return self.rows.filter(has=self.page.get_by_role("button", name=title, exact=True))

    async def shows(self, **states: str) -> None:
        """`kettle="ready"`: so it is, or comes to be."""
        for title, state in states.items():
            await expect(self.row(title)).to_have_attribute("data-state", state)


def file(name: str, content: str | bytes) -> FilePayload:
    return {"name": name, "mimeType": "", "buffer": content.encode() if isinstance(content, str) else content}


@pytest.fixture(scope="module")
def worker(live_database: None, server_env: dict[str, str]) -> Iterator[Worker]:
    """It reads what is uploaded to `servers`."""
    with Worker(server_env) as started:
        yield started


@pytest.fixture
def cookie(person: Person) -> dict[str, str]:
    """The person's sign-in, as a browser keeps it."""
    visitor = Visitor()
    visitor.force_login(person.user, backend=settings.AUTHENTICATION_BACKENDS[0])
    return {"name": settings.SESSION_COOKIE_NAME, "value": visitor.cookies[settings.SESSION_COOKIE_NAME].value}


@pytest.fixture
async def new_context(browser: Browser) -> AsyncIterator[Callable[..., Awaitable[BrowserContext]]]:
    contexts: list[BrowserContext] = []

    async def make(**options: object) -> BrowserContext:
        context = await browser.new_context(**{"reduced_motion": "reduce", **options})  # type: ignore[arg-type]
        await context.add_init_script(WATCH)
        contexts.append(context)
        return context

    yield make
    for context in contexts:
        await context.close()


@pytest.fixture
async def stranger(new_context: Callable[..., Awaitable[BrowserContext]], servers: tuple[Server, Server]) -> Tab:
    """A page of someone who is not signed in."""
    return Tab(await (await new_context()).new_page(), servers[0])


@pytest.fixture
async def open_tab(
    new_context: Callable[..., Awaitable[BrowserContext]], servers: tuple[Server, Server], cookie: dict[str, str]
) -> AsyncIterator[OpenTab]:
    """`await open_tab("/c/…/", server=servers[1])`: a signed-in page. All are checked at the end."""
    tabs: list[Tab] = []

    async def open_one(path: str = "/", *, server: Server | None = None, **options: object) -> Tab:
        at = server or servers[0]
        context = await new_context(**options)
        await context.add_cookies([{**cookie, "url": at.url}])  # type: ignore[list-item, misc]
        tab = Tab(await context.new_page(), at)
        await tab.visit(path)
        tabs.append(tab)
        return tab

    yield open_one
    for tab in tabs:
        await tab.check()
