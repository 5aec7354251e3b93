"""Parsers run once, on the whole answer: while it streams people see text, and half a JSON document is none."""

from typing import Any, Protocol


class Parser(Protocol):
    def parse(self, text: str) -> Any:
        """The value in the text. Raises ValueError if it holds none."""


class StrParser:
    """The answer as it is."""

    def __init__(self, config: dict[str, Any]) -> None:
        if config:
            raise ValueError("the parser 'str' takes no options")

    def parse(self, text: str) -> str:
        return text
