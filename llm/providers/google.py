"""Google's Gemini models. Options: those of ChatGoogleGenerativeAI (`api_key`, `temperature`, `max_tokens`, …)."""

from langchain_google_genai import ChatGoogleGenerativeAI

from kernel.errors import Misconfigured
from llm.providers.base import ChatProvider, ProviderConfig, check_options


def build(config: ProviderConfig) -> ChatGoogleGenerativeAI:
    check_options(config, ChatGoogleGenerativeAI)
    defaults = {"timeout": config.read_timeout}
    # For Google's SDK 1 means "no retry" and 0 means five; retries are ours.
    ours = {"max_retries": 1}
    try:
        return ChatGoogleGenerativeAI(**{**defaults, **config, **ours})
    except ValueError as error:
        raise Misconfigured(
            f"The model {config['model']!r} of provider 'google' can't be set up: give it the option 'api_key' or set"
            " GOOGLE_API_KEY."
        ) from error


provider = ChatProvider(build, promises_finish_reason=True)
