"""Writing a summary: a model's call that is a run of its own, with its row in the log and its tokens in budgets.

It may take a long time and fail, and nobody waits for it. Brings LangChain: imported by who summarises.
"""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from uuid import UUID

from django.db import transaction
from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage

from kernel import database
from kernel.errors import ChainError
from kernel.ids import new_id
from kernel.text import storable
from llm import budgets, configuration, ledger, router, tokens, window
from llm.configuration import Configuration
from llm.errors import ProviderTimeout
from llm.events import ModelFinished, ModelStarted, Text
from llm.journal import RunJournal, RunRef
from llm.models import CallStatus
from llm.state import RunContext
from llm.tokens import TokenCounter
from memory.messages import quoted, spoken
from memory.options import Summarising

#: Seconds that a call may take: less than a worker's claim lasts.
_LONGEST = 90.0
#: Tokens of messages that one call is given at most: longer spans lose their details.
_PIECE = 4000


@dataclass(frozen=True, kw_only=True)
class Whose:
    """Whose conversation it is, and what its workflow lets the log keep."""

    workspace_id: UUID
    session_id: UUID
    user_id: int | None
    log_content: str = "full"


class Writer:
    """Summarises for one conversation, with the options of its workflow's step."""

    def __init__(self, whose: Whose, options: Summarising, holding: Configuration) -> None:
        """Raises Misconfigured for a model that there isn't."""
        self._whose = whose
        self._options = options
        self._holding = holding
        bounds = tokens.largest(options.model, holding)
        self.counter = TokenCounter(bounds.tokenizer)
        context = bounds.context_tokens
        #: Of a small window a quarter is for the answer, and as much for the notes so far.
        self._answer = options.summary_tokens if context is None else min(options.summary_tokens, context // 4)
        self._room = window.budget(bounds, {"max_tokens": self._answer})

    @classmethod
    async def of(cls, whose: Whose, options: Summarising) -> "Writer":
        """Under the workspace's configuration as it is now."""
        return cls(whose, options, await configuration.current(whose.workspace_id))

    def fitting(self, notes: str, said: Sequence[tuple[str, str]]) -> int:
        """How many of the messages (role and text), from the first on, one call takes; one at least."""
        room = self._piece(notes)
        for number, (role, text) in enumerate(said):
            room -= self.counter.text(quoted(spoken(role, text))) + 1
            if room < 0:
                return max(1, number)
        return len(said)

    async def summarise(self, notes: str, said: Sequence[tuple[str, str]]) -> tuple[str, str]:
        """The notes with what was said added to them, and the alias that wrote them. One call. Raises a ChainError."""
        ref = RunRef(
            run_id=new_id(),
            workspace_id=self._whose.workspace_id,
            user_id=self._whose.user_id,
            session_id=self._whose.session_id,
            log_content=self._whose.log_content,
        )
        journal = RunJournal(ref)
        journal.under(self._holding, workflow_id=None)
        await database.run(_open, ref, self._holding)
        run = RunContext(self._holding, journal, run_id=ref.run_id)
        status, category = CallStatus.STOPPED, ""
        try:
            written = await self._ask(self._messages(notes, self._written(notes, said)), run)
            status = CallStatus.OK
        except ChainError as error:
            status, category = CallStatus.FAILED, error.code
            raise
        finally:
            # Also when the worker is told to end: what was begun is accounted for.
            await asyncio.shield(database.run(ledger.close_run, journal.ending(status, error_category=category)))
        return written

    async def _ask(self, messages: Sequence[BaseMessage], run: RunContext) -> tuple[str, str]:
        asked = router.stream_route(self._options.model, messages, run=run, options={"max_tokens": self._answer})
        said, alias, whole = [], "", False
        try:
            async with asyncio.timeout(_LONGEST), aclosing(asked) as events:
                async for event in events:
                    if isinstance(event, Text):
                        said.append(event.text)
                    elif isinstance(event, ModelStarted):
                        alias = event.alias
                    whole = whole or isinstance(event, ModelFinished)
        except TimeoutError as error:
            raise ProviderTimeout from error
        text = storable("".join(said)).strip()
        if not whole or not text:
            raise ChainError("The model wrote no summary.", code="empty_summary")
        return self._cut(text, self._answer), alias

    def _messages(self, notes: str, piece: str) -> list[BaseMessage]:
        before = f"<notes>\n{quoted(notes)}\n</notes>\n\n" if notes else ""
        asked = (
            f"{before}<messages>\n{quoted(piece)}\n</messages>\n\nWrite the notes"
            f"{' anew, with all of the old ones that still matters' if notes else ''}, in fewer than"
            f" {self._answer * 2 // 3} words."
        )
        return [SystemMessage(self._options.instructions), HumanMessage(asked)]

    def _written(self, notes: str, said: Sequence[tuple[str, str]]) -> str:
        """What was said, as a text that fits; of a single message that doesn't, the middle is left out."""
        text = "\n".join(spoken(role, content) for role, content in said)
        room = self._piece(notes)
        # Markup takes more once it is quoted.
        while (taken := self.counter.text(quoted(text))) > room:
            half = len(text) * room // (taken + 1) * 4 // 10
            text = text[:half] + "\n…\n" + text[len(text) - half :] if half else ""
        return text

    def _piece(self, notes: str) -> int:
        """The tokens that messages may have in one call; the notes may grow to all that they may have."""
        if self._room is None:
            return _PIECE
        beside = self.counter(self._messages(notes, "")) + max(0, self._answer - self.counter.text(notes))
        return max(16, min(_PIECE, self._room - beside))

    def _cut(self, text: str, limit: int) -> str:
        """No provider is trusted with the bound that it was given."""
        while (taken := self.counter.text(text)) > limit + limit // 4:
            text = text[: len(text) * limit // taken]
        return text


def _open(ref: RunRef, holding: Configuration) -> None:
    with budgets.refusals_told(), transaction.atomic():
        ledger.open_run(ref, in_chat=False)
        budgets.begin_run(holding, ref)
