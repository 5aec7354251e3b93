"""The options of the kinds of memory, as a workflow's `memory` step takes them. Sizes are in tokens or messages."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError


class Options(BaseModel):
    """What every kind has in common: an unknown option is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class TokenWindowOptions(Options):
    """The newest messages that fit."""

    #: Without it MEMORY["TOKENS"].
    max_tokens: int | None = Field(default=None, ge=16, le=1_000_000)
    #: The alias or route whose tokens are counted; empty: the default one.
    model: str = Field(default="", max_length=255)


#: The options of each built-in kind that takes `options`.
BY_KIND: dict[str, type[Options]] = {
    "token_window": TokenWindowOptions,
}

_Kind = TypeVar("_Kind", bound=Options)


def read(kind: type[_Kind], given: Mapping[str, Any]) -> _Kind:
    """Options from a step. Raises ValueError that begins with the option at fault and names the known ones."""
    try:
        return kind.model_validate(dict(given))
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False)[0]
        name = ".".join(str(part)[:60] for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            raise ValueError(f".{name}: not an option here; known: {', '.join(kind.model_fields)}") from error
        raise ValueError(f".{name}: {fault['msg']}") from error
