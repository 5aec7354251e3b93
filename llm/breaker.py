"""A circuit breaker: a model that fails time after time is left alone for a while, then tried with one call.

    closed ──failures in a row──▶ open ──seconds pass──▶ half open ──the probe answers──▶ closed
                                   ▲                         │
                                   └────the probe fails──────┘

It judges by what the router tells it. A call that was stopped, or that the provider refused for its content, says
nothing about the model's health.
"""

from collections.abc import Callable
from time import monotonic
from typing import Literal

from kernel.conf import config
from llm.models import ModelConfig
from llm.signals import breaker_closed, breaker_opened

State = Literal["closed", "open", "half_open"]


class Breaker:
    """One model's. `clock` gives seconds. LLM.BREAKER_FAILURES and LLM.BREAKER_SECONDS are read when they matter."""

    def __init__(self, alias: str, *, clock: Callable[[], float] = monotonic) -> None:
        self.clock = clock
        self._alias = alias
        #: Failures since the last answer, and the code of the last one.
        self.failures = 0
        self.last_error = ""
        self._open_until: float | None = None
        self._probing = False

    @property
    def state(self) -> State:
        if self._open_until is None:
            return "closed"
        return "open" if self.clock() < self._open_until else "half_open"

    @property
    def passable(self) -> bool:
        """Whether `enter` would let a call through now."""
        return self._open_until is None or (self.clock() >= self._open_until and not self._probing)

    @property
    def wait(self) -> float:
        """Seconds until a probe may be tried; 0 if one may now."""
        return 0.0 if self._open_until is None else max(0.0, self._open_until - self.clock())

    def enter(self) -> "Passage | None":
        """Let one call through, as the probe if it is time for one; None: not now. Leave it in every ending."""
        if not self.passable:
            return None
        if self._open_until is not None:
            self._probing = True
            return Passage(self, probe=True)
        return Passage(self, probe=False)

    def _close(self) -> None:
        self.failures = 0
        if self._open_until is not None:
            self._open_until = None
            # In the event loop, so a receiver must not block; one that raises is logged and disturbs nothing.
            breaker_closed.send_robust(ModelConfig, alias=self._alias)

    def _fail(self, code: str, *, probe: bool) -> None:
        self.failures += 1
        self.last_error = code
        # Calls that were under way when it opened tell nothing new.
        was_closed = self._open_until is None
        if probe or (was_closed and self.failures >= config().llm.breaker_failures):
            self._open_until = self.clock() + config().llm.breaker_seconds
            if was_closed:
                breaker_opened.send_robust(ModelConfig, alias=self._alias)


class Passage:
    """One call's way through. Each of its verdicts is about this call only; `leave` alone is none."""

    def __init__(self, breaker: Breaker, *, probe: bool) -> None:
        self._breaker = breaker
        self._probe = probe

    def heard(self) -> None:
        """The model speaks. A probe need not end for others to be let through: its answer may take minutes."""
        if self._probe:
            self.leave()
            self._breaker._close()  # noqa: SLF001  the two are one thing

    def answered(self) -> None:
        if self._probe or self._breaker.state == "closed":
            self.leave()
            self._breaker._close()  # noqa: SLF001

    def failed(self, code: str) -> None:
        self._breaker._fail(code, probe=self._probe)  # noqa: SLF001
        self.leave()

    def leave(self) -> None:
        """Without a verdict: another call may probe."""
        if self._probe:
            self._probe = False
            self._breaker._probing = False  # noqa: SLF001
