"""How a run tells of its model calls: opened before the provider is asked, closed in every ending.

The rows are written by llm.ledger: the first one with the run itself, a further one before its call, and each call's
end with the next write of the run: the opening of the next call, or the transaction that ends the run.
"""

from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

from kernel import database
from llm import ledger
from llm.configuration import Configuration, Price
from llm.models import CallStatus
from llm.usage import NO_USAGE, Usage


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

    async def open(self, call: Call) -> None:
        """Say that a provider is about to be asked. Raises BudgetExceeded, DatabaseUnavailable: then don't ask."""

    def close(self, closed: Closed) -> None:
        """Say how it ended; exactly once for each call that was opened, however it ended."""


class Unwritten:
    """Keeps nothing: for runs that leave no rows."""

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


class RunJournal:
    """The journal of one attempt at a run."""

    def __init__(self, run: RunRef) -> None:
        self.run = run
        self._open: dict[int, Call] = {}
        self._closed: list[Closed] = []
        self._written_tokens = 0
        self._began = False
        self._configuration: Configuration | None = None

    def under(self, configuration: Configuration, *, workflow_id: UUID | None) -> None:
        """What holds for the run: its budgets, and the workflow version that its rows name."""
        self._configuration = configuration
        self.run = ledger.with_workflow(self.run, workflow_id)

    async def open(self, call: Call) -> None:
        written = tuple(self._closed)
        if self._configuration is not None and ledger.must_write(self.run, call, self._configuration):
            await database.run(ledger.open_call, self.run, call, written, self._configuration)
            del self._closed[: len(written)]
            self._written_tokens += sum(one.usage.output_tokens for one in written)
        self._began = True
        self._open[call.number] = call

    def close(self, closed: Closed) -> None:
        if self._open.pop(closed.call.number, None) is not None:
            self._closed.append(closed)

    def ending(
        self, status: CallStatus, *, error_category: str = "", text: str = "", steps: tuple[dict[str, Any], ...] = ()
    ) -> Ending:
        """What is left to be written. Calls that are still open (their task ignores its end) count as leftovers."""
        return Ending(
            run=self.run,
            status=status,
            error_category=error_category,
            calls=tuple(self._closed),
            steps=steps,
            leftovers=not self._began or bool(self._open),
            text=text,
            written_tokens=self._written_tokens,
        )
