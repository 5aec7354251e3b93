"""What an exception out of a provider's stream means, whichever SDK raised it.

LangChain's integrations classify their SDK's errors with its `Model…Error` classes; HTTP status codes tell the rest.
"""

import email.utils
import re
import time
from collections.abc import Mapping
from typing import Any

import httpx2
from langchain_core import exceptions as langchain

from llm import errors
from llm.errors import ProviderContextExceeded, ProviderError

_BY_CLASS: tuple[tuple[type[Exception], type[ProviderError]], ...] = (
    (langchain.ModelAuthenticationError, errors.ProviderMisconfigured),
    (langchain.ModelPermissionDeniedError, errors.ProviderMisconfigured),
    (langchain.ModelNotFoundError, errors.ProviderMisconfigured),
    (langchain.ContextOverflowError, errors.ProviderContextExceeded),
    (langchain.ModelInvalidRequestError, errors.ProviderRefused),
    (langchain.ModelTimeoutError, errors.ProviderTimeout),
    (langchain.ModelConnectionError, errors.ProviderUnavailable),
    (langchain.ModelAPIError, errors.ProviderUnavailable),
    # Embeddings are not classified, and OpenAI's SDK has these as the cause of its own.
    (httpx2.ConnectTimeout, errors.ProviderUnavailable),
    (httpx2.TimeoutException, errors.ProviderTimeout),
    (httpx2.TransportError, errors.ProviderUnavailable),
    (TimeoutError, errors.ProviderTimeout),
    (OSError, errors.ProviderUnavailable),
)
#: Longer advice than this is a provider's mistake, not a time to wait.
LONGEST_RETRY_AFTER = 3600.0
_DEFAULT_RETRY_AFTER = 2.0
_CODES = frozenset({"context_length_exceeded", "exceed_context_size_error"})
_LONGEST_WORDS = 2000
_FIGURE = r"[\d,]{1,12}"
# OpenAI and vLLM; Google; Hugging Face's TGI; Anthropic behind gateways.
_WORDS = tuple(
    re.compile(words.replace("WINDOW", rf"(?P<window>{_FIGURE})").replace("ASKED", rf"(?P<asked>{_FIGURE})"))
    for words in (
        r"maximum context length is WINDOW(?:.{0,80}?(?:resulted in|requested) ASKED)?",
        r"token count \(ASKED\) exceeds the maximum number of tokens allowed \(WINDOW\)",
        r"`inputs` .{0,80}must be <= WINDOW\. Given: ASKED",
        r"prompt is too long: ASKED tokens > WINDOW",
    )
)


def explain(error: Exception) -> ProviderError:
    """The typed failure. What nothing here knows (JSON, UTF-8 and shape errors among it) is a bad response."""
    if exceeded := context_exceeded(error):
        return exceeded
    status = _status(error)
    if status:
        return from_status(status, advised_delay(error))
    if isinstance(error, langchain.ModelRateLimitError):
        return errors.ProviderRateLimited()
    for known, meaning in _BY_CLASS:
        if isinstance(error, known) or isinstance(error.__cause__, known):
            return meaning()
    return errors.ProviderBadResponse()


def context_exceeded(error: Exception) -> ProviderContextExceeded | None:
    """The failure, if a provider says that the prompt is longer than its model's window; with figures if it has any.

    Each says it in its own way: in a code (OpenAI, and who speaks its protocol), a type (llama.cpp), or only in words.
    """
    if _status(error) not in (0, 400, 413, 422):
        return None
    body = getattr(error, "body", None)
    said: Mapping[str, Any] = body if isinstance(body, Mapping) else {}
    names = {str(said.get(name)) for name in ("code", "type")} | {str(getattr(error, "code", ""))}
    # The text is read for this alone; it goes nowhere.
    text = f"{error}"[:_LONGEST_WORDS]
    worded = next(filter(None, (words.search(text) for words in _WORDS)), None)
    if not (isinstance(error, langchain.ContextOverflowError) or names & _CODES or worded):
        return None
    figures = worded.groupdict() if worded else {}
    window, asked = said.get("n_ctx") or figures.get("window"), said.get("n_prompt_tokens") or figures.get("asked")
    return ProviderContextExceeded(window=_count(window), asked=_count(asked))


def from_status(status: int, delay: float | None) -> ProviderError:
    """The failure that an HTTP status stands for; 529 is "overloaded" with some providers."""
    if status in (401, 402, 403, 404) or status < 400:
        return errors.ProviderMisconfigured()
    if status == 429:
        return errors.ProviderRateLimited(retry_after=delay or _DEFAULT_RETRY_AFTER)
    if status in (408, 409, 425) or status >= 500:
        return errors.ProviderUnavailable(retry_after=delay or _DEFAULT_RETRY_AFTER)
    return errors.ProviderRefused()


def advised_delay(error: Exception) -> float | None:
    """Seconds from a Retry-After header (a number or an HTTP date), if the provider sent a usable one."""
    value = _headers(error).get("retry-after", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return min(seconds, LONGEST_RETRY_AFTER) if seconds > 0 else None


def _count(figure: object) -> int | None:
    """A plausible number of tokens."""
    digits = str(figure).replace(",", "")
    return int(digits) if digits.isdecimal() and 0 < len(digits) <= 9 and int(digits) else None


def _status(error: Exception) -> int:
    for holder in (error, getattr(error, "response", None)):
        for name in ("status_code", "code"):
            value = getattr(holder, name, None)
            if isinstance(value, int) and 300 <= value < 600:
                return value
    return 0


def _headers(error: Exception) -> Mapping[str, str]:
    headers = getattr(getattr(error, "response", None), "headers", None)
    return {str(name).lower(): str(value) for name, value in headers.items()} if headers else {}
