"""A clock that a test moves."""


class Clock:
    """Call it for the seconds; `pass_` lets some go by."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += seconds
