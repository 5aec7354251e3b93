"""Google's Gemini models. Options: those of ChatGoogleGenerativeAI (`api_key`, `temperature`, `max_tokens`, …).

A custom transport keeps the SDK on httpx. By itself it takes aiohttp where that is installed: one number then bounds
the whole answer, and a failed connection is tried again after up to ten seconds.
"""

import re
from collections.abc import AsyncIterator
from typing import Any

from google.genai.errors import APIError
from langchain_core.outputs import ChatGenerationChunk
from langchain_google_genai import ChatGoogleGenerativeAI
from typing_extensions import override

from kernel.errors import Misconfigured
from llm import http
from llm.errors import ProviderError, ProviderMisconfigured
from llm.providers import failures, transport
from llm.providers.base import ChatProvider, ProviderConfig, check_options, wrong_value


class _Chat(ChatGoogleGenerativeAI):
    """The SDK's answer is part of a reference cycle: left alone, a stopped one goes on until the next collection."""

    @override
    async def _astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[ChatGenerationChunk]:
        responses = transport.note_responses()
        try:
            async for chunk in super()._astream(*args, **kwargs):
                yield chunk
        finally:
            for response in responses:
                await response.aclose()


def build(config: ProviderConfig) -> ChatGoogleGenerativeAI:
    check_options(config, ChatGoogleGenerativeAI)
    # The SDK tells the server of it, as the time that the whole answer may take.
    defaults = {"timeout": config.bounds.total_timeout}
    bounded = transport.BoundedTransport(transport.bounds_of(config))
    # Proxies of the environment are the shared client's business.
    network = {
        "transport": bounded, "follow_redirects": False, "trust_env": False, "cookies": http.no_cookies(),
    }  # fmt: skip
    # For Google's SDK 1 means "no retry" and 0 means five; retries are ours.
    ours = {"max_retries": 1, "client_args": {**network, **config.get("client_args", {})}}
    try:
        return _Chat(**{**defaults, **config, **ours})
    except ValueError as error:
        raise wrong_value(error, config) or Misconfigured(
            f"The model {config['model']!r} of provider 'google' can't be set up: give it the option 'api_key' or set"
            " GOOGLE_API_KEY."
        ) from error


def explain(error: Exception) -> ProviderError | None:
    """LangChain's classes say less than the SDK's own error, which is their cause."""
    cause = error if isinstance(error, APIError) else error.__cause__
    if not isinstance(cause, APIError):
        return transport.explain(error)
    if _reason(cause) == "API_KEY_INVALID":  # with status 400
        return ProviderMisconfigured()
    return failures.from_status(cause.code, failures.advised_delay(cause) or _delay(cause))


def _details(error: APIError) -> list[dict[str, Any]]:
    body = error.details.get("error", error.details) if isinstance(error.details, dict) else {}
    details = body.get("details", []) if isinstance(body, dict) else []
    return [one for one in details if isinstance(one, dict)] if isinstance(details, list) else []


def _reason(error: APIError) -> str:
    return next((str(one["reason"]) for one in _details(error) if "reason" in one), "")


def _delay(error: APIError) -> float | None:
    """Google's advice stands in the body: `"retryDelay": "12s"`."""
    delays = [re.fullmatch(r"(\d{1,6}(?:\.\d{1,9})?)s", str(one.get("retryDelay", ""))) for one in _details(error)]
    return next((min(float(found[1]), failures.LONGEST_RETRY_AFTER) for found in delays if found), None)


def _keep_to_schema(schema: Any) -> dict[str, Any]:
    return {"response_mime_type": "application/json", "response_json_schema": schema}


provider = ChatProvider(
    build,
    explain=explain,
    promises_finish_reason=True,
    output_limit="max_output_tokens",
    keep_to_schema=_keep_to_schema,
)
