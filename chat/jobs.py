"""One run of this process, and what its rows keep of how it ended. Values and pure functions."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from time import monotonic
from typing import Any

from chat.models import MessageStatus
from chat.streams import LocalStream
from chat.turns import Outcome, TakenOver, Turn
from kernel.errors import ChainError
from kernel.text import storable
from llm import usage
from llm.events import ModelFinished, ModelStarted


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
    call: ModelStarted | None = None
    called_at: float = 0.0
    first_text_at: float | None = None
    usage: ModelFinished | None = None

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
        return Outcome(status=status, text=text, error_code=code, sources=self.sources, log=_log_of(self, text))


def settlement(taken: TakenOver, shown: str, *, unknown: bool) -> Outcome:
    """The end of a run whose owner died; `unknown`: nobody can tell what was shown."""
    log = _estimated([{"role": "user", "content": taken.turn.question}], shown)
    if taken.stop_requested:
        return Outcome(status=MessageStatus.STOPPED, text=shown, log=log)
    if shown or unknown:
        return Outcome(status=MessageStatus.INTERRUPTED, text=shown, log=log)
    return Outcome(status=MessageStatus.FAILED, text="", error_code="attempts_exhausted", log=log)


def bare(outcome: Outcome) -> Outcome:
    """What can always be written of an end."""
    tokens = usage.estimate([], outcome.text)
    log = {"input_tokens": tokens.input_tokens, "output_tokens": tokens.output_tokens, "usage_estimated": True}
    return Outcome(status=MessageStatus.FAILED, text=storable(outcome.text), error_code="internal", log=log)


def _log_of(job: Job, text: str) -> dict[str, Any]:
    """The log row's columns: what the provider said, else what we can tell ourselves, marked as estimated."""
    call, told = job.call, job.usage
    now = monotonic()
    if call is None:
        return {"input_tokens": 0, "output_tokens": 0, "usage_estimated": True}
    if told is not None:
        spent = {
            "input_tokens": told.input_tokens,
            "output_tokens": told.output_tokens,
            "usage_estimated": told.estimated,
        }
    else:
        spent = _estimated(call.messages, text)
    first = job.first_text_at
    return spent | {
        "alias": call.alias,
        "provider": call.provider,
        "model_name": call.model,
        "model_parameters": dict(call.parameters),
        "prompt_text": list(call.messages),
        "first_token_ms": None if first is None else max(0, int((first - job.called_at) * 1000)),
        "latency_ms": int((now - job.called_at) * 1000),
    }


def _estimated(messages: Sequence[Mapping[str, Any]], text: str) -> dict[str, Any]:
    guess = usage.estimate(messages, text)
    return {"input_tokens": guess.input_tokens, "output_tokens": guess.output_tokens, "usage_estimated": True}
