"""Links between the project's own texts lead somewhere."""

import re
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, PAGES, ROOT, headings, name_of, prose

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_TEXTS = [*PAGES, *sorted((DOCS / "decisions").glob("*.md")), ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]


@pytest.mark.parametrize("page", _TEXTS, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link}: there is no {target.relative_to(ROOT)}"
        if anchor:
            assert anchor in {_anchor(heading) for heading in headings(target)}, f"{link}: there is no such heading"


def test_every_page_is_in_the_index() -> None:
    index = set(_LINK.findall((DOCS / "README.md").read_text()))
    assert {page.name for page in DOCS.glob("*.*") if page.name != "README.md"} <= index


def test_files_named_in_the_text_exist() -> None:
    for page in PAGES:
        for name in re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.(?:py|md|yaml))`", prose(page)):
            assert name.startswith("mysite/") or (ROOT / name).exists(), f"{name_of(page)} names {name}"


def _anchor(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
