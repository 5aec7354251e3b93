"""Hugging Face: `model` is a repository's name served by Inference Providers; or `endpoint_url` is your own endpoint.

Options: `api_key` (or HF_TOKEN), `endpoint_url`, `provider`, and the sampling options of ChatHuggingFace. Pipelines in
this process are not offered: they need torch and would block the event loop.
"""

from typing import Any

from langchain_huggingface import ChatHuggingFace, HuggingFaceEndpoint

from kernel.errors import Misconfigured
from llm.providers.base import ChatProvider, ProviderConfig, check_options


def build(config: ProviderConfig) -> ChatHuggingFace:
    options = ProviderConfig(config.bounds)
    api_key, service, url = (options.pop(name, None) for name in ("api_key", "provider", "endpoint_url"))
    model = options.pop("model")
    check_options(options, ChatHuggingFace)
    try:
        place: dict[str, Any] = {"endpoint_url": url} if url else {"repo_id": model, "provider": service}
        timeout = int(config.read_timeout)
        endpoint = HuggingFaceEndpoint(**place, huggingfacehub_api_token=api_key, timeout=timeout)
        return ChatHuggingFace(**{"stream_usage": True, **options, "llm": endpoint})
    except ValueError as error:
        raise Misconfigured(
            f"The model {model!r} of provider 'huggingface' can't be set up: 'model' takes a repository's name,"
            " 'endpoint_url' a URL."
        ) from error


provider = ChatProvider(build, promises_finish_reason=True)
