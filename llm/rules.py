"""The built-in validator `rules`: words, patterns, a length, personal data.

{"validator": "rules", "words": ["project x"], "patterns": ["(?i)ssn"], "max_chars": 2000, "redact": true}
"""

import unicodedata
from typing import Annotated, Any

import re2  # type: ignore[import-untyped]  # google-re2 ships none
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from kernel.redaction import redact
from llm import patterns
from llm.validators import PASS, Context, Verdict, refuse, replace


def _pattern(pattern: str) -> str:
    patterns.compile_pattern(pattern)
    return pattern


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid")

    #: Refused wherever they stand as whole words; case and accents make no difference.
    words: list[Annotated[str, Field(min_length=1, max_length=200)]] = Field(default_factory=list, max_length=1000)
    patterns: list[Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_pattern)]] = Field(
        default_factory=list, max_length=100
    )
    max_chars: int | None = Field(default=None, gt=0)
    redact: bool = False
    message: str = Field(default="", max_length=500)


class Rules:
    def __init__(self, config: dict[str, Any]) -> None:
        self._options = _Options.model_validate(config)
        words = [folded(word).strip() for word in self._options.words]
        joined = "|".join(re2.escape(word) for word in words if word)
        self._words = re2.compile(rf"(?:^|[^\pL\pN_])(?:{joined})(?:[^\pL\pN_]|$)") if joined else None
        self._patterns = [re2.compile(pattern) for pattern in self._options.patterns]

    def check(self, text: str, context: Context) -> Verdict:
        options = self._options
        if options.max_chars is not None and len(text) > options.max_chars:
            return refuse(options.message or f"A text may have {options.max_chars} characters here.")
        if self._words is not None and self._words.search(folded(text)):
            return refuse(options.message)
        if any(pattern.search(text) for pattern in self._patterns):
            return refuse(options.message)
        clean = redact(text) if options.redact else text
        return PASS if clean == text else replace(clean)


def folded(text: str) -> str:
    """Without case, accents, invisible characters, and with single spaces: how words are compared."""
    plain = unicodedata.normalize("NFKD", text).casefold()
    kept = (char for char in plain if not unicodedata.combining(char) and unicodedata.category(char) != "Cf")
    return " ".join("".join(kept).split())
