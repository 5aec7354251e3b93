"""OpenAI and everything that speaks its protocol (`base_url`): the embedded model, vLLM, gateways.

Options: those of ChatOpenAI. `stream_usage: False` for a server that rejects `stream_options`.
"""

from typing import Any

import openai
from langchain_openai import ChatOpenAI

from kernel.errors import Misconfigured
from llm import http
from llm.errors import ProviderError, ProviderMisconfigured, ProviderRateLimited, ProviderUnavailable
from llm.providers.base import ChatProvider, ProviderConfig, check_options, keep_to_schema, wrong_value


def build(config: ProviderConfig) -> ChatOpenAI:
    check_options(config, ChatOpenAI)
    bounds = config.bounds
    defaults = {
        # With a base URL of one's own LangChain asks for no usage; without it every count would be a guess.
        "stream_usage": True,
        "timeout": openai.Timeout(config.read_timeout, connect=bounds.connect_timeout, pool=bounds.connect_timeout),
        "http_async_client": http.async_client(),
        "http_client": http.sync_client(),
    }
    # Retries and the wait for a chunk are ours (llm.model_call); its own would cost a task for each token.
    ours = {"max_retries": 0, "stream_chunk_timeout": None}
    try:
        return ChatOpenAI(**{**defaults, **config, **ours})
    except (openai.OpenAIError, ValueError) as error:
        known = wrong_value(error, config) if isinstance(error, ValueError) else None
        raise known or Misconfigured(
            f"The model {config['model']!r} of provider 'openai' can't be set up: give it the option 'api_key' or set"
            " OPENAI_API_KEY (any text will do for a local server)."
        ) from error


def explain(error: Exception) -> ProviderError | None:
    if isinstance(error, openai.RateLimitError) and error.code == "insufficient_quota":
        return ProviderMisconfigured("The model provider's credit is used up; its operator must mend that.")
    if isinstance(error, openai.APIConnectionError):
        # Its own read timeout lies behind ours, so a timeout here is one of connecting.
        return ProviderUnavailable()
    if isinstance(error, openai.APIError) and not isinstance(error, openai.APIStatusError):
        # An `error` object amid the stream.
        return ProviderRateLimited() if "rate_limit" in f"{error.code} {error.type}" else ProviderUnavailable()
    return None


def _keep_to_schema(schema: Any) -> dict[str, Any]:
    # As an option of its own LangChain would take another way, which waits for the whole answer to check it.
    return {"extra_body": keep_to_schema(schema)}


provider = ChatProvider(build, explain=explain, promises_finish_reason=True, keep_to_schema=_keep_to_schema)
