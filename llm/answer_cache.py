"""Answers that are given again: what a request for one is, and what a cache of them does.

A workflow asks for it (`"cache": {"kind": "exact", "ttl": 3600}`). llm.calls looks a request up before its call; what
was answered anew is kept when the whole run has ended well: an answer that a parser or a validator refused would be
refused for as long as it were kept. That is a unit of work of its own, awaited after all text has been shown, so it
delays nobody's reading, has an owner, and says in the log when it fails. A cache that fails is a miss, never an error.
"""

import asyncio
import logging
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from uuid import UUID

import msgspec
from django.db import DatabaseError
from pydantic import BaseModel, ConfigDict, Field, field_validator

from kernel.errors import ChainError
from llm.registry import answer_caches, document_checks

if TYPE_CHECKING:
    from llm.state import RunContext

logger = logging.getLogger(__name__)

T = TypeVar("T")

_LONGEST_TTL = timedelta(days=30)
#: Seconds after which the model is asked instead.
_PATIENCE = 2.0


class CacheOptions(BaseModel):
    """The `cache` option of a workflow; see docs/caching.md."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    #: `exact`, `semantic`, or another registered one.
    kind: str = "exact"
    #: Seconds that an answer is given again.
    ttl: int = Field(default=3600, ge=1, le=int(_LONGEST_TTL.total_seconds()))
    #: For `semantic`: how near a question must be to the one that was answered (cosine similarity).
    threshold: float = Field(default=0.95, ge=0, le=1)

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        if kind not in answer_caches.names():
            raise ValueError(f"there is no answer cache {kind!r}; known: {', '.join(answer_caches.names())}")
        return kind


@dataclass(frozen=True, kw_only=True)
class Target:
    """A model that may answer. `fingerprint`: a hash of all that it is called with, its key and address included."""

    alias: str
    provider: str
    model: str
    parameters: dict[str, Any]
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class Request:
    """All that an answer depends on. `messages` are plain JSON, the whole prompt with its history."""

    workspace_id: UUID
    workflow_id: UUID | None
    prompt_id: UUID | None
    targets: tuple[Target, ...]
    #: Options of this call, beside those of the model.
    parameters: Mapping[str, Any]
    messages: tuple[dict[str, Any], ...]
    question: str
    #: Documents whose passages are in the prompt.
    document_ids: tuple[UUID, ...] = ()

    @cached_property
    def keys(self) -> dict[str, Target]:
        """One for each model that may answer."""
        return {self.digest(target): target for target in self.targets}

    def digest(self, target: Target, *more: Any, messages: Any = None) -> str:
        """SHA-256 of what an answer of `target` depends on; `messages` in place of the request's own."""
        parts = [
            self.workspace_id, self.workflow_id, self.prompt_id, target.provider, target.model, target.fingerprint,
            self.parameters, self.messages if messages is None else messages, more,
        ]  # fmt: skip
        return sha256(msgspec.json.encode(parts, enc_hook=repr, order="sorted")).hexdigest()


def may_be_kept(request: Request) -> bool:
    """Whether the documents that the answer was made from are still there; they then stay until the transaction ends.

    Call it in the transaction that keeps the answer: one that was deleted meanwhile must not live on in it.
    """
    checks = (document_checks.get(name) for name in document_checks.names())
    return not request.document_ids or all(check(request.document_ids) for check in checks)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A complete answer, the model that gave it, and what it took."""

    target: Target
    text: str
    input_tokens: int
    output_tokens: int


class AnswerCache(Protocol):
    """Made with a workflow's CacheOptions as a dict."""

    async def find(self, request: Request) -> Answer | None: ...

    async def keep(self, request: Request, answer: Answer) -> None: ...


@dataclass(frozen=True)
class Fresh:
    """An answer that is kept once its run has ended well."""

    cache: AnswerCache
    request: Request
    answer: Answer


def opened(options: Mapping[str, Any]) -> AnswerCache:
    """The cache that a workflow asks for. `options` are validated CacheOptions."""
    cache: AnswerCache = answer_caches.get(options["kind"])(dict(options))
    return cache


async def find(cache: AnswerCache, request: Request) -> Answer | None:
    """The answer that is given again, if there is one."""
    return await _patiently(cache.find(request), "find")


async def keep(run: "RunContext") -> None:
    """Keep what the models answered in a run that has ended well."""
    fresh, run.fresh = run.fresh, []
    for one in fresh:
        await _patiently(one.cache.keep(one.request, one.answer), "keep")


async def _patiently(work: Awaitable[T], what: str) -> T | None:
    try:
        async with asyncio.timeout(_PATIENCE):
            return await work
    except (ChainError, DatabaseError, TimeoutError) as error:
        logger.warning("action=answer_cache_failed what=%s error=%s", what, type(error).__name__)
        return None
