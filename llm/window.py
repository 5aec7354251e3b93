"""Fitting a prompt into the window of the model that is asked.

What is left out, in this order, until the rest fits: the oldest turns of the history, whole ones; notes of a memory
(summaries) that stand in it; the oldest exchanges with tools; the passages of the lowest rank. Instructions, the
question and the last exchange stay: where they alone are too long, nobody is asked. In what is left the system messages
are joined (llm.instructions).
"""

import asyncio
import functools
import json
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self, TypeAlias

from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from msgspec import structs

from kernel.conf import ModelAlias, config
from llm import instructions, tokens
from llm.configuration import Configuration
from llm.errors import ContextExceeded, ProviderContextExceeded
from llm.events import Sources, Step
from llm.state import RunContext, WorkflowState
from llm.tokens import TokenCounter

Messages: TypeAlias = Sequence[BaseMessage]
Passages: TypeAlias = Sequence[dict[str, Any]]

#: Under which names options bound an answer.
_ANSWER_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens")
#: Bytes that a vocabulary may be asked to count in the event loop; the estimate takes a millisecond for many more.
_LONG = 20_000
#: Of a prompt that a model refused without a figure, so much is tried.
_SHARE_AFTER_REFUSAL = 0.7
#: And so much at most where it named its window.
_SHARE_AT_MOST = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """The messages of a call, and how they are written with less of what may be left out."""

    #: As they are while all of it fits.
    messages: Messages
    history: Messages = ()
    #: The hits of llm.events.Sources, the best first.
    passages: Passages = ()
    #: Makes the messages of a part of `history` and of `passages`.
    render: Callable[[Messages, Passages], Messages]
    #: These stand before and behind what `render` makes.
    head: Messages = ()
    #: A model's calls of tools with their results, each call with its own.
    exchanges: Sequence[Messages] = ()
    tail: Messages = ()
    #: The step that asks, for the trace.
    path: str = ""

    @classmethod
    def of(cls, messages: Messages) -> Self:
        """Of messages that are only a list: what stands between the instructions and the last question is history."""
        first = next((at for at, one in enumerate(messages) if one.type != "system"), len(messages))
        last = max((at for at, one in enumerate(messages) if one.type == "human"), default=len(messages) - 1)
        first = max(0, min(first, last))
        return cls(
            messages=messages,
            history=messages[first:last],
            render=lambda history, _: [*messages[:first], *history, *messages[last:]],
        )

    def around(self, *, head: Messages = (), exchanges: Sequence[Messages] = (), tail: Messages = ()) -> Self:
        """The same with more before and behind it."""
        between = [one for exchange in exchanges for one in exchange]
        whole = [*head, *self.messages, *between, *tail]
        return replace(self, messages=whole, head=head, exchanges=exchanges, tail=tail)

    def written(self, history: Messages, exchanges: Sequence[Messages], passages: Passages) -> list[BaseMessage]:
        """The messages with no more than that."""
        between = (one for exchange in exchanges for one in exchange)
        return [*self.head, *self.render(history, passages), *between, *self.tail]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """What a model is sent."""

    messages: Messages
    passages: Passages
    dropped_messages: int = 0
    dropped_passages: int = 0
    #: Of the prompt as it is sent, by our count, and the most that it may have; 0 of a prompt that nobody shortened.
    tokens: int = 0
    limit: int = 0

    @property
    def whole(self) -> bool:
        return not (self.dropped_messages or self.dropped_passages)

    @property
    def detail(self) -> dict[str, int]:
        return {
            "dropped_messages": self.dropped_messages,
            "dropped_passages": self.dropped_passages,
            "tokens": self.tokens,
            "limit": self.limit,
        }


def draft_of(state: WorkflowState) -> Draft:
    """What the next model call of a run is asked: the last prompt, or history and question."""
    if not state.messages:
        question = HumanMessage(state.question)
        return Draft(
            messages=[*state.history, question],
            history=state.history,
            render=lambda history, _: [*history, question],
            path=state.path,
        )
    draft = state.draft
    same = draft is not None and len(draft.messages) == len(state.messages)
    # A step of somebody's own may have written other messages since.
    if draft is not None and same and all(map(_is, draft.messages, state.messages)):
        return replace(draft, path=state.path)
    return replace(Draft.of(state.messages), path=state.path)


def budget_of(alias: str = "", configuration: Configuration | None = None) -> int | None:
    """The tokens that a prompt for a model may have, of a route's models for the one that takes most; None: unknown.

    Count them with `tokens.counter_of`. Raises Misconfigured.
    """
    return budget(tokens.largest(alias, configuration))


def budget(bounds: ModelAlias, options: Mapping[str, Any] | None = None) -> int | None:
    """The window without what is kept free: for the answer, and a hundredth for what nobody can count."""
    window = bounds.context_tokens
    if window is None:
        return None
    return window - answer_reserve(bounds, options) - max(16, window // 100)


def answer_reserve(bounds: ModelAlias, options: Mapping[str, Any] | None = None) -> int:
    """The tokens of the window that are kept for the answer: what it may have, and never more than three quarters.

    Where nothing bounds it, LLM.RESERVE_OUTPUT_TOKENS, up to a quarter.
    """
    window = bounds.context_tokens or 0
    given = (*_limits(options or {}), *_limits(bounds.options))
    asked = min((one for one in (bounds.max_output_tokens, *given[:1]) if one), default=None)
    if asked is None:
        return min(config().llm.reserve_output_tokens, window // 4)
    return min(asked, window * 3 // 4)


class Gate:
    """One call's way to models, each with a window of its own; it knows what people were told of it."""

    def __init__(
        self,
        draft: Draft,
        run: RunContext,
        *,
        tools: Sequence[BaseTool] = (),
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.draft = draft
        self._run = run
        self._options = options or {}
        self._tools = tools
        self._told = Fitted(messages=draft.messages, passages=draft.passages)

    async def fit(self, bounds: ModelAlias, *, limit: int | None = None) -> Fitted:
        """What a model is sent; `limit`: no more than so many tokens, whatever the alias says.

        Raises ContextExceeded where what must stay is too long, or nothing may be left out.
        """
        declared = budget(bounds, self._options)
        limits = [one for one in (declared, limit) if one is not None]
        known = tokens.most(self.draft.messages) if limits else 0
        if not limits or (known <= min(limits) and not self._tools and "json_schema" not in self._options):
            return _whole(self.draft)
        work = functools.partial(self._fit, bounds, min(limits))
        return work() if known < _LONG or bounds.tokenizer == "estimate" else await asyncio.to_thread(work)

    def _fit(self, bounds: ModelAlias, limit: int) -> Fitted:
        counter = tokens.TokenCounter(bounds.tokenizer)
        return fit(self.draft, counter, limit - self._beside(counter), trim=bounds.overflow == "trim")

    def _beside(self, counter: TokenCounter) -> int:
        """What descriptions of tools and a schema take."""
        sent: list[Any] = [convert_to_openai_tool(tool) for tool in self._tools]
        if schema := self._options.get("json_schema"):
            sent.append(schema)
        return sum(counter.text(json.dumps(one, default=repr)) + tokens.PER_TOOL_CALL for one in sent)

    def told(self, fitted: Fitted) -> list[Step | Sources]:
        """What people should know of a prompt that is about to be sent, unless they do."""
        before, self._told = self._told, fitted
        news: list[Step | Sources] = []
        if fitted.detail != before.detail and not (fitted.whole and before.whole):
            news.append(self._step("finished", fitted.detail))
        if len(fitted.passages) != len(before.passages):
            news.append(Sources(tuple(fitted.passages)))
        return news

    def passes_over(self, alias: str, error: ContextExceeded) -> Step:
        """What people should know of a route's model that is not asked."""
        return self._step("failed", {"alias": alias, "tokens": error.tokens, "limit": error.limit})

    def less_than(self, sent: Fitted, bounds: ModelAlias, failure: ProviderContextExceeded) -> int:
        """The tokens, by our count, that a model may be sent once it has refused what it was `sent`."""
        counter = tokens.TokenCounter(bounds.tokenizer)
        counted = counter(sent.messages) + self._beside(counter)
        if failure.window is None:
            return int(_SHARE_AFTER_REFUSAL * counted)
        # Where the provider counts more than we do, its window is as much smaller for us.
        window = int(failure.window * min(1.0, counted / (failure.asked or counted)))
        limit = budget(structs.replace(bounds, context_tokens=window), self._options)
        assert limit is not None
        return min(limit, int(_SHARE_AT_MOST * counted))

    def _step(self, state: Literal["finished", "failed"], detail: Mapping[str, Any]) -> Step:
        place = {"path": self.draft.path} if self.draft.path else {}
        self._run.trace.append({**place, "type": "window", "state": state, "ms": 0, **detail})
        return Step("window", state, dict(detail))


def fit(draft: Draft, count: Callable[[Messages], int], limit: int, *, trim: bool = True) -> Fitted:
    """The draft with as little left out as makes it fit into `limit` tokens. Raises ContextExceeded.

    What is left is counted anew, message by message: templates may say other things where passages are missing.
    """
    whole = count(draft.messages)
    if whole <= limit:
        return _whole(draft)
    plans = _plans(draft) if trim else []
    found: dict[int, tuple[list[BaseMessage], int]] = {}

    def fits(plan: int) -> bool:
        messages = draft.written(*plans[plan])
        found[plan] = (messages, count(messages))
        return found[plan][1] <= limit

    chosen = bisect_left(range(len(plans)), True, key=fits)
    if chosen == len(plans):
        raise _too_long(found[chosen - 1][1] if found else whole, limit)
    messages, counted = found[chosen]
    passages = plans[chosen][2]
    sent = instructions.first_of_all(messages)
    return Fitted(
        messages=sent,
        passages=passages,
        dropped_messages=max(0, len(draft.messages) - len(messages)),
        dropped_passages=len(draft.passages) - len(passages),
        tokens=counted if sent is messages else count(sent),
        limit=limit,
    )


def _whole(draft: Draft) -> Fitted:
    return Fitted(messages=instructions.first_of_all(draft.messages), passages=draft.passages)


def _plans(draft: Draft) -> list[tuple[Messages, Sequence[Messages], Passages]]:
    """What may be kept of history, exchanges and passages, from nearly all of it down to nothing."""
    notes = [_is_note(one) for one in draft.history]
    turns = [at for at, one in enumerate(draft.history) if one.type == "human" and not notes[at]]
    histories: list[Messages] = [
        [one for at, one in enumerate(draft.history) if notes[at] or at >= start]
        for start in [*turns, len(draft.history)]
        if start > 0
    ]
    kept = [one for one, note in zip(draft.history, notes, strict=True) if note]
    histories += [kept[gone:] for gone in range(1, len(kept) + 1)]
    exchanges, passages = draft.exchanges, draft.passages
    return [
        *((history, exchanges, passages) for history in histories if len(history) < len(draft.history)),
        *(((), exchanges[gone:], passages) for gone in range(1, len(exchanges))),
        *(((), exchanges[-1:], passages[:left]) for left in range(len(passages) - 1, -1, -1)),
    ]


def _is_note(message: BaseMessage) -> bool:
    """A memory's own word about the conversation, not one that was said at some place in it."""
    said = message.response_metadata
    return message.type == "system" or (bool(said) and "order" not in said)


def _too_long(needed: int, limit: int) -> ContextExceeded:
    return ContextExceeded(
        f"This takes about {needed} tokens, and the model has room for {max(0, limit)}: shorten the message, or use a"
        " model with a larger window.",
        tokens=needed,
        limit=limit,
    )


def _limits(options: Mapping[str, Any]) -> list[int]:
    return [value for name in _ANSWER_LIMITS if isinstance(value := options.get(name), int) and value > 0]


def _is(one: object, other: object) -> bool:
    return one is other
