"""How a run tells of its model calls: opened before the provider is asked, closed in every ending.

The rows are written by llm.ledger: the first one with the run itself, a further one before its call, and each call's
end with the next write of the run: the opening of the next call, or the transaction that ends the run.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Protocol
from uuid import UUID

from kernel import database
from llm import budgets, ledger
from llm.configuration import Configuration, Price
from llm.models import CallStatus
from llm.usage import NO_USAGE, Usage, estimate


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call that is about to be made."""

    number: int
    alias: str
    provider: str
    model: str
    #: Without secrets.
    parameters: dict[str, Any]
    #: `{"role", "content"}` each.
    messages: list[dict[str, Any]]
    prompt_id: UUID | None = None
    price: Price | None = None
    #: Tokens that the answer may have; None: whatever the provider allows.
    max_output_tokens: int | None = None
    #: What the descriptions of its tools take, beside the messages.
    tool_bytes: int = 0
    #: Its answer is given again: no provider is asked, nothing is spent.
    cached: bool = False


@dataclass(frozen=True, kw_only=True)
class Closed:
    """How a call ended. `status` None: it was cut short, and the run's own end says why."""

    call: Call
    status: CallStatus | None
    usage: Usage
    error_category: str = ""
    text: str = ""
    cached_input_tokens: int = 0
    first_token_ms: int | None = None
    latency_ms: int | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


class Journal(Protocol):
    """What a model call tells of itself."""

    @property
    def run(self) -> "RunRef | None":
        """Whose rows it writes; None: nobody's."""

    def keep(self, log_content: str) -> None:
        """Keep no more of the texts than this policy lets, from now on: full, redacted, none. It never gets laxer."""

    def output_bound(self, own: int | None) -> int | None:
        """The tokens that a call's answer may have: the model's `own` bound, else what a budget holds back for it."""

    async def open(self, call: Call) -> None:
        """Say that a provider is about to be asked. Raises BudgetExceeded, PriceMissing, DatabaseUnavailable, and
        Conflict when the run is no longer ours: then don't ask."""

    def close(self, closed: Closed) -> None:
        """Say how it ended; exactly once for each call that was opened, however it ended."""


class Unwritten:
    """Keeps nothing: for runs that leave no rows."""

    run = None

    def keep(self, log_content: str) -> None:
        return

    def output_bound(self, own: int | None) -> int | None:
        return own

    async def open(self, call: Call) -> None:
        return

    def close(self, closed: Closed) -> None:
        return


@dataclass(frozen=True, kw_only=True)
class RunRef:
    """Whose rows these are."""

    run_id: UUID
    workspace_id: UUID
    user_id: int | None
    session_id: UUID | None = None
    workflow_id: UUID | None = None
    attempt: int = 1
    #: The number of the row that was opened with the run.
    first_call: int = 0
    #: The workflow's policy for texts, where it is stricter than the setting's.
    log_content: str = "full"
    #: Budgets may hold something back for it. Only who opened the run can tell that nothing is.
    holds: bool = True


@dataclass(frozen=True, kw_only=True)
class Ending:
    """What the transaction that ends a run writes of its calls. Made once, written as often as it takes."""

    run: RunRef
    status: CallStatus
    error_category: str = ""
    #: Calls whose end isn't written yet.
    calls: tuple[Closed, ...] = ()
    steps: tuple[dict[str, Any], ...] = ()
    #: Rows may be open that `calls` doesn't name: the run ended before its first call, or its process died.
    leftovers: bool = True
    #: What is known of those: estimated tokens.
    leftover_usage: Usage = NO_USAGE
    #: Its process died: nobody knows what those calls came to, so budgets count what was held back for them, nor what
    #: its workflow lets the log keep, so no text is kept.
    unknown: bool = False
    text: str = ""
    #: Tokens of the answers whose ends are written already.
    written_tokens: int = 0

    @property
    def alias(self) -> str:
        """The model that spoke last."""
        return self.calls[-1].call.alias if self.calls else ""

    @property
    def latency_ms(self) -> int:
        """What the providers took for the calls of `calls`."""
        return sum(one.latency_ms or 0 for one in self.calls)

    @property
    def output_tokens(self) -> int:
        """What all calls of the run said, as far as is known."""
        return (
            self.written_tokens + sum(one.usage.output_tokens for one in self.calls) + self.leftover_usage.output_tokens
        )

    def bare(self, *, error_category: str, text: str) -> "Ending":
        """What can always be written of it: figures, and no content; versions may be gone, texts unfit."""
        return replace(
            self,
            run=replace(self.run, workflow_id=None),
            status=CallStatus.FAILED,
            error_category=error_category,
            calls=tuple(_bare(one) for one in self.calls),
            steps=(),
            text=text,
        )


def _bare(closed: Closed) -> Closed:
    call = replace(closed.call, messages=[], parameters={}, prompt_id=None)
    return replace(closed, call=call, text="", metadata={})


class RunJournal:
    """The journal of one attempt at a run."""

    def __init__(self, run: RunRef) -> None:
        self.run = run
        self._open: dict[int, Call] = {}
        self._closed: list[Closed] = []
        #: Calls whose rows may stand or not: the opening was refused, cut short, or never answered.
        self._unsure: set[int] = set()
        self._holds = run.holds
        self._written_tokens = 0
        self._began = False
        self._configuration: Configuration | None = None

    def under(self, configuration: Configuration, *, workflow_id: UUID | None) -> None:
        """What holds for the run: its budgets, and the workflow version that its rows name."""
        self._configuration = configuration
        self.run = ledger.with_workflow(self.run, workflow_id)

    def keep(self, log_content: str) -> None:
        # A workflow within another may be stricter than the whole, and what is kept of the whole tells of it.
        self.run = replace(self.run, log_content=ledger.stricter(self.run.log_content, log_content))

    def output_bound(self, own: int | None) -> int | None:
        return budgets.output_bound(self._holding, own, user_id=self.run.user_id)

    @property
    def _holding(self) -> Configuration:
        assert self._configuration is not None, "a run's configuration is told before its first call"
        return self._configuration

    async def open(self, call: Call) -> None:
        if ledger.must_write(self.run, call, self._holding):
            await self._write(call)
        # The first row stands already, also if another call comes before its own: only its call closes it.
        self._began = self._began or call.number == self.run.first_call
        self._open[call.number] = call

    def close(self, closed: Closed) -> None:
        if self._open.pop(closed.call.number, None) is not None:
            self._closed.append(closed)

    async def _write(self, call: Call) -> None:
        """Open the call's row. Who is cut short meanwhile doesn't learn whether that came about."""
        self._unsure.add(call.number)
        self._holds = self._holds or budgets.holds_calls(self._holding, self.run.user_id)
        written = tuple(self._closed)
        await database.run(ledger.open_call, self.run, call, written, self._holding)
        self._unsure.discard(call.number)
        # By identity: another call of this run may have been opened, and have taken some, meanwhile.
        mine = {id(one) for one in written}
        taken = [one for one in self._closed if id(one) in mine]
        self._closed = [one for one in self._closed if id(one) not in mine]
        self._written_tokens += sum(one.usage.output_tokens for one in taken)

    def ending(
        self, status: CallStatus, *, error_category: str = "", text: str = "", steps: tuple[dict[str, Any], ...] = ()
    ) -> Ending:
        """What is left to be written. Of calls that are still open (their task ignores its end) we estimate the end."""
        cut = [
            Closed(call=call, status=None, usage=estimate(call.messages, text), error_category=error_category)
            for call in self._open.values()
        ]
        return Ending(
            run=replace(self.run, holds=self._holds),
            status=status,
            error_category=error_category,
            calls=(*self._closed, *cut),
            steps=steps,
            leftovers=not self._began or bool(self._unsure),
            text=text,
            written_tokens=self._written_tokens,
        )
