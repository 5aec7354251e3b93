"""When to ask the same model again: how long to wait first, and whether the model's budget of retries allows it.

Retries help against a hiccup and make an outage worse. So each call earns a share of a retry, each retry costs one, and
what can be saved up is bounded: a model that is down gets LLM.RETRY_SHARE more calls than people make, not a multiple.
"""

import random
from collections.abc import Callable
from time import monotonic

from kernel.conf import config
from kernel.errors import ChainError
from llm.errors import ProviderRateLimited, ProviderTimeout, ProviderUnavailable

#: Seconds before the first retry when the provider names none; doubled for each further one.
BACKOFF = 0.5
#: Retries that may be saved up; an idle model has them.
FLOOR = 10.0
#: A retry is earned in so many seconds whatever the traffic, so that rare calls have some too.
_SECONDS_A_RETRY = 10.0
_RETRYABLE = (ProviderRateLimited, ProviderUnavailable, ProviderTimeout)


class RetryBudget:
    """A token bucket, one a model. `clock` gives seconds."""

    def __init__(self, *, clock: Callable[[], float] = monotonic) -> None:
        self.clock = clock
        self._tokens = FLOOR
        self._counted_at = clock()

    @property
    def tokens(self) -> float:
        now = self.clock()
        self._tokens = min(FLOOR, self._tokens + (now - self._counted_at) / _SECONDS_A_RETRY)
        self._counted_at = now
        return self._tokens

    def call(self) -> None:
        """A call that is no retry begins."""
        self._tokens = min(FLOOR, self.tokens + config().llm.retry_share)

    def take(self) -> bool:
        """Pay for a retry, if there is enough for one."""
        if self.tokens < 1:
            return False
        self._tokens -= 1
        return True


def delay(failure: ChainError, retries: int) -> float | None:
    """Seconds until another try after `retries` of them; None if the failure would only come again.

    With jitter, so that calls that failed together don't come back together, but never before the provider's own
    Retry-After.
    """
    if not isinstance(failure, _RETRYABLE):
        return None
    # Imported here as it brings LangChain along, and the figures of llm.health are read by what is loaded at start-up.
    from llm.providers import failures  # noqa: PLC0415

    # A cancellation (our own watchdog's) tells of no delay; typed failures of a provider's own code have no cause.
    cause = failure.__cause__ or failure
    advised = failures.advised_delay(cause) if isinstance(cause, Exception) else None
    if advised is not None:
        return advised * random.uniform(1, 1.1)  # noqa: S311  jitter, no secret
    return BACKOFF * float(2**retries) * random.uniform(0.5, 1)  # noqa: S311
