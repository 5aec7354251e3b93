"""The texts that are indexed and searched: forty-seven tales in the public domain (see data/README.md)."""

from dataclasses import dataclass
from pathlib import Path

DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class Tale:
    name: str
    title: str
    #: Without the title.
    text: str


def tales() -> list[Tale]:
    return [_read(path) for path in sorted((DATA / "tales").glob("*.txt"))]


def _read(path: Path) -> Tale:
    title, _, text = path.read_text().partition("\n\n")
    return Tale(path.name, title, text)
