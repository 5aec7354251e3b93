"""A LangChain `BaseCache` for one workspace, for those who call LangChain's models by themselves.

    model = init_chat_model(…, cache=AnswersOf(workspace.id))

Its answers are rows beside those of workflows: they survive restarts, expire, and are bounded in number. Give it to one
model; `set_llm_cache` would serve every workspace of the process. What is kept are plain dicts of messages, read with
LangChain's `messages_from_dict`: never `load`, which makes objects of what a text names.
"""

from collections.abc import Sequence
from datetime import timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

import msgspec
from django.db.models.functions import Now
from langchain_core.caches import RETURN_VAL_TYPE, BaseCache
from langchain_core.messages import message_to_dict, messages_from_dict
from langchain_core.outputs import ChatGeneration, Generation

from kernel import database
from kernel.caches import Tally
from llm.exact_cache import write
from llm.models import CachedAnswer

#: It sets these rows apart from those of workflows, whose keys are hexadecimal.
_PREFIX = "lc:"
_tally = Tally("langchain_answers")


class AnswersOf(BaseCache):
    """The answers of a workspace; each is given again for `ttl` seconds."""

    def __init__(self, workspace_id: UUID, *, ttl: int = 3600) -> None:
        self._workspace_id = workspace_id
        self._ttl = timedelta(seconds=ttl)

    def lookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        found = self._rows().filter(key=_key(prompt, llm_string), expires_at__gt=Now()).first()
        _tally.count(hit=found is not None)
        return None if found is None else [_generation(kept) for kept in msgspec.json.decode(found.text)]

    def update(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        kept = _kept(return_val)
        if kept is not None:
            tokens = _tokens(return_val)
            write(
                CachedAnswer(
                    workspace_id=self._workspace_id,
                    key=_key(prompt, llm_string),
                    text=kept,
                    input_tokens=tokens[0],
                    output_tokens=tokens[1],
                    expires_at=Now() + self._ttl,
                )
            )

    def clear(self, **_: Any) -> None:
        self._rows().delete()

    async def alookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        return await database.run(self.lookup, prompt, llm_string)

    async def aupdate(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        await database.run(self.update, prompt, llm_string, return_val)

    async def aclear(self, **_: Any) -> None:
        await database.run(self.clear)

    def _rows(self) -> Any:
        return CachedAnswer.objects.filter(workspace_id=self._workspace_id, key__startswith=_PREFIX)


def _key(prompt: str, llm_string: str) -> str:
    parts = [sha256(text.encode(errors="surrogatepass")).digest() for text in (prompt, llm_string)]
    return _PREFIX + sha256(b"".join(parts)).hexdigest()[: 64 - len(_PREFIX)]


def _kept(generations: Sequence[Generation]) -> str | None:
    """The generations as JSON; None if they hold what JSON can't: then they are not kept."""
    try:
        return msgspec.json.encode([_plain(one) for one in generations]).decode()
    except (TypeError, ValueError):
        return None


def _plain(one: Generation) -> dict[str, Any]:
    if isinstance(one, ChatGeneration):
        return {"message": message_to_dict(one.message), "info": one.generation_info}
    return {"text": one.text, "info": one.generation_info}


def _generation(kept: dict[str, Any]) -> Generation:
    if "message" in kept:
        (message,) = messages_from_dict([kept["message"]])
        return ChatGeneration(message=message, generation_info=kept["info"])
    return Generation(text=kept["text"], generation_info=kept["info"])


def _tokens(generations: Sequence[Generation]) -> tuple[int, int]:
    counted = [getattr(getattr(one, "message", None), "usage_metadata", None) or {} for one in generations]
    return (
        sum(one.get("input_tokens", 0) for one in counted),
        sum(one.get("output_tokens", 0) for one in counted),
    )
