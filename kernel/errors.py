"""The errors of Django Chain.

ChainError
├── Misconfigured            you can mend it: a setting, a row, a missing package
├── Refused                  the caller can mend it: bad or forbidden input
│   ├── Invalid
│   ├── NotFound             a missing row and a foreign one are one case
│   ├── Conflict
│   ├── TooLarge
│   ├── NotAuthenticated
│   ├── Forbidden
│   └── Busy                 a bound was reached; try again after `retry_after`
└── Unavailable              the world failed; try again after `retry_after`
    ├── DatabaseUnavailable
    ├── StoreUnavailable     Redis or Valkey
    └── ProviderError        see llm.errors

`code` and `message` go to clients as they stand, so neither may hold a secret or the text of another exception.
"""

from typing import ClassVar


class ChainError(Exception):
    """Any failure that Django Chain names itself."""

    code: str = "internal"
    default_message: ClassVar[str] = "Something went wrong on the server."

    def __init__(self, message: str = "", *, code: str = "", retry_after: float | None = None) -> None:
        self.message = message or self.default_message
        self.code = code or type(self).code
        self.retry_after = retry_after
        super().__init__(self.message)


class Misconfigured(ChainError):
    code = "misconfigured"
    default_message = "The server is not set up for this."


class Refused(ChainError):
    code = "refused"
    default_message = "This request was refused."


class Invalid(Refused):
    code = "invalid"
    default_message = "The request is not valid."


class NotFound(Refused):
    code = "not_found"
    default_message = "There is no such object among yours."


class Conflict(Refused):
    code = "conflict"
    default_message = "This collides with something that exists."


class TooLarge(Refused):
    code = "too_large"
    default_message = "That is too large."


class NotAuthenticated(Refused):
    code = "sign_in_required"
    default_message = "Sign in, or send a token in hello."


class Forbidden(Refused):
    code = "forbidden"
    default_message = "You may not do this."


class Busy(Refused):
    code = "busy"
    default_message = "Too much at once; try again shortly."


class Unavailable(ChainError):
    code = "unavailable"
    default_message = "A service is not available; try again shortly."

    def __init__(self, message: str = "", *, code: str = "", retry_after: float | None = 2.0) -> None:
        super().__init__(message, code=code, retry_after=retry_after)


class DatabaseUnavailable(Unavailable):
    code = "database_unavailable"
    default_message = "The database is not available; nothing was saved. Try again shortly."


class StoreUnavailable(Unavailable):
    code = "store_unavailable"
    default_message = "The stream store is not available; try again shortly."
