"""Time bounds for one model call, at the cost of two clock reads a token.

`asyncio.timeout` can't do this: a generator's consumer works between two tokens, and that time is not the provider's;
and a timer for each token would cost more than the token. One timer compares the time since something came.
"""

import asyncio
from collections.abc import Callable

from kernel.conf import ModelAlias

#: While the consumer works no bound runs; the timer just looks again.
_LOOK_AGAIN = 0.05


class Watchdog:
    """Cancels the task that waits for a provider longer than the alias allows.

    It spans all tries of one model, from the first `begin()` on. Between `resume()` and `pause()` the provider is
    waited for. A cancellation that was ours is told by `expired()`, which takes it back. `on_heard` is called once,
    with the first sign of an answer.
    """

    def __init__(self, bounds: ModelAlias, *, on_heard: Callable[[], None] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._now = self._loop.time
        self._between = bounds.between_tokens_timeout
        self._total = bounds.total_timeout
        #: The bound that runs now: first the one for the first token, over all tries, then the one between two.
        self._limit = bounds.first_token_timeout
        self._on_heard = on_heard
        self._began = False
        #: Text was handed on.
        self.spoke = False
        self._heard = 0.0
        self._since: float | None = None
        self._waited = 0.0
        self._task: asyncio.Task[object] | None = None
        self._cancels_before = 0
        self._fired = False
        self._timer: asyncio.TimerHandle | None = None

    def close(self) -> None:
        """No more tries. Whoever was to be told is let go, and what he holds with him."""
        self._on_heard = None
        if self._timer is not None:
            self._timer.cancel()

    @property
    def waiting(self) -> bool:
        """The provider is waited for: what is raised now is its doing."""
        return self._since is not None

    def begin(self) -> None:
        """The provider is about to be asked; again, if this is not the first try."""
        if self._timer is None:
            self._heard = self._now()
            self._arm(min(self._limit, self._total))

    def resume(self) -> None:
        self._since = now = self._now()
        if self._began:
            self._heard = now
        # Read anew each time: a consumer may ask for each event from another task.
        self._task = task = asyncio.current_task(self._loop)
        if task is not None:
            self._cancels_before = task.cancelling()

    def pause(self) -> None:
        """A token came; its consumer's work is not on the provider's time."""
        if self._since is not None:
            self._waited += self._now() - self._since
            self._since = None
        self.spoke = True
        if not self._began:
            self.heard()

    def rest(self) -> None:
        """This try is over: no one is waited for."""
        if self._since is not None:
            self._waited += self._now() - self._since
            self._since = None

    def heard(self) -> None:
        """Something came that is no text. From now on the time between tokens counts."""
        self._heard = self._now()
        if not self._began:
            self._began = True
            self._limit = self._between
            self._arm(min(self._limit, self._left_in_all()))
            if self._on_heard is not None:
                self._on_heard()

    def shorten(self, limit: float) -> None:
        """Wait only so long from now on: what is still to come is dispensable."""
        self.heard()
        self._limit = min(self._limit, limit)
        self._arm(self._limit)

    def allows(self, delay: float) -> bool:
        """Whether another try after so many seconds would still be within the time for the first token."""
        in_time = self._now() - self._heard + delay < self._limit and delay < self._left_in_all()
        return not self._began and in_time

    def expired(self) -> bool:
        """Whether this watchdog, and no one else, cancelled the task."""
        if not self._fired or self._task is None:
            return False
        self._fired = False
        return self._task.uncancel() <= self._cancels_before

    def _look(self) -> None:
        if self._since is None or self._task is None:
            self._arm(max(min(self._limit, self._left_in_all()), _LOOK_AGAIN))
            return
        left = min(self._limit - (self._now() - self._heard), self._left_in_all())
        if left > 0:
            self._arm(left)
            return
        self._fired = True
        self._task.cancel()

    def _left_in_all(self) -> float:
        waiting = self._now() - self._since if self._since is not None else 0.0
        return self._total - self._waited - waiting

    def _arm(self, delay: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(delay, self._look)
