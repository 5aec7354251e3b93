"""One run of this process, and what its rows keep of how it ended. Values and pure functions."""

import asyncio
from dataclasses import dataclass, field, replace
from enum import Enum
from time import monotonic
from typing import Any

from chat.models import MessageStatus
from chat.streams import LocalStream
from chat.turns import Outcome, TakenOver, Turn
from kernel.errors import ChainError
from kernel.text import storable
from llm import usage
from llm.citations import cited
from llm.journal import Ending, RunJournal
from llm.models import CallStatus


class Fate(Enum):
    """Why a run's work was cut short."""

    NONE = "none"
    STOPPED = "stopped"
    #: Another process owns it now: write nothing.
    LOST = "lost"


@dataclass(eq=False)
class Job:
    """One run of this process."""

    turn: Turn
    stream: LocalStream
    place: int = 0
    fate: Fate = Fate.NONE
    ending: bool = False
    cut_at: float | None = None
    work: asyncio.Task[None] | None = None
    sources: list[dict[str, Any]] = field(default_factory=list)
    trace: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.journal = RunJournal(self.turn.ref)

    def begin_again(self, turn: Turn) -> None:
        """The run's next attempt is ours."""
        self.turn, self.journal = turn, RunJournal(turn.ref)

    def configuration_may_have_changed(self) -> None:
        """The run has waited: what was configured when it was committed may not hold any more."""
        self.turn = replace(self.turn, generation=None)

    def cut(self, fate: Fate) -> None:
        """Cut the work short; the model's connection closes with it. Harmless when it is over."""
        if self.fate is Fate.NONE and not self.ending:
            self.fate, self.cut_at = fate, monotonic()
            if self.work is not None:
                self.work.cancel()

    def outcome(self) -> Outcome:
        """How it ended, once its work is over."""
        over = self.work is not None and self.work.done()
        cancelled = self.work is not None and self.work.cancelled()
        error = self.work.exception() if self.work is not None and over and not cancelled else None
        if self.fate is Fate.STOPPED:
            status, code = MessageStatus.STOPPED, ""
        elif error is None and not cancelled:
            status, code = MessageStatus.COMPLETE, ""
        elif isinstance(error, ChainError):
            status, code = MessageStatus.FAILED, error.code
        else:
            status, code = MessageStatus.FAILED, "internal"
        text = self.stream.text
        log = self.journal.ending(_LOG_STATUS[status], error_category=code, text=text, steps=tuple(self.trace))
        return Outcome(status=status, text=text, error_code=code, sources=cited(text, self.sources), log=log)


def settlement(taken: TakenOver, shown: str, *, unknown: bool) -> Outcome:
    """The end of a run whose owner died; `unknown`: nobody can tell what was shown."""
    if taken.stop_requested:
        status, code = MessageStatus.STOPPED, ""
    elif shown or unknown:
        status, code = MessageStatus.INTERRUPTED, ""
    else:
        status, code = MessageStatus.FAILED, "attempts_exhausted"
    asked = [{"role": "user", "content": taken.turn.question}]
    log = Ending(
        run=taken.turn.ref,
        status=_LOG_STATUS[status],
        error_category=code,
        leftover_usage=usage.estimate(asked, shown),
        unknown=True,
        text=shown,
    )
    return Outcome(status=status, text=shown, error_code=code, log=log)


def bare(outcome: Outcome) -> Outcome:
    """What can always be written of an end."""
    text = storable(outcome.text)
    log = outcome.log.bare(error_category="internal", text=text)
    return Outcome(status=MessageStatus.FAILED, text=text, error_code="internal", log=log)


_LOG_STATUS = {
    MessageStatus.COMPLETE: CallStatus.OK,
    MessageStatus.STOPPED: CallStatus.STOPPED,
    MessageStatus.FAILED: CallStatus.FAILED,
    MessageStatus.INTERRUPTED: CallStatus.INTERRUPTED,
}
