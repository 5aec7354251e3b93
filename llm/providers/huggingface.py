"""Hugging Face: `model` is a repository's name served by Inference Providers; or `endpoint_url` is your own endpoint.

Options: `api_key` (or HF_TOKEN), `endpoint_url`, `provider`, and the sampling options of ChatHuggingFace. Pipelines in
this process are not offered: they need torch and would block the event loop.
"""

import re
from collections.abc import AsyncGenerator
from typing import Any

import httpx
from huggingface_hub import AsyncInferenceClient
from huggingface_hub.errors import TextGenerationError, ValidationError
from langchain_huggingface import ChatHuggingFace, HuggingFaceEndpoint
from typing_extensions import override

from kernel.errors import Misconfigured
from llm import http
from llm.errors import ProviderError, ProviderRefused, ProviderUnavailable
from llm.providers import transport
from llm.providers.base import ChatProvider, ProviderConfig, check_options, wrong_value
from llm.providers.transport import Bounds

#: Whose endpoints may get the token of the environment.
_HOSTED = re.compile(r"https://([\w-]+\.)*(huggingface\.co|huggingface\.cloud|hf\.space)(:443)?(/.*)?")

_DONE = "data: [DONE]"


class _Client(AsyncInferenceClient):
    """Hugging Face's client on our connections.

    Its own keeps each answer's connection open until the client itself is closed, so that a stopped answer would go on,
    and an answered one would take a place for ever.
    """

    def __init__(self, *, bounds: Bounds, anonymous: bool, **options: Any) -> None:
        super().__init__(**options)
        self._bounds = httpx.Timeout(**bounds)
        self._anonymous = anonymous

    @override
    async def _inner_post(self, request_parameters: Any, *, stream: bool = False) -> Any:
        return self._lines(request_parameters) if stream else await self._whole(request_parameters)

    async def _lines(self, asked: Any) -> AsyncGenerator[str, None]:
        async with http.shared(transport.client).stream("POST", **self._request(asked)) as response:
            response.raise_for_status()
            lines = response.aiter_lines()
            async for line in lines:
                if line.strip() == _DONE:
                    # The SDK reads no further; a connection that was read to its end is used again.
                    async for _ in lines:
                        pass
                yield line.strip()

    async def _whole(self, asked: Any) -> bytes:
        response = await http.shared(transport.client).post(**self._request(asked))
        return response.raise_for_status().content

    def _request(self, asked: Any) -> dict[str, Any]:
        headers = dict(asked.headers)
        if self._anonymous:
            # The SDK adds the token of the environment to every request, wherever it goes.
            headers.pop("authorization", None)
        return {"url": asked.url, "json": asked.json, "data": asked.data, "headers": headers, "timeout": self._bounds}


def build(config: ProviderConfig) -> ChatHuggingFace:
    options = ProviderConfig(config.bounds)
    options.update(config)
    api_key, service, url = (options.pop(name, None) for name in ("api_key", "provider", "endpoint_url"))
    model = options.pop("model")
    check_options(options, ChatHuggingFace)
    key = getattr(api_key, "get_secret_value", lambda: api_key)()
    place: dict[str, Any] = {"endpoint_url": url} if url else {"repo_id": model, "provider": service}
    try:
        endpoint = HuggingFaceEndpoint(**place, huggingfacehub_api_token=key, timeout=int(config.read_timeout))
        endpoint.async_client = _Client(
            bounds=transport.bounds_of(config),
            anonymous=bool(url) and not key and not _HOSTED.fullmatch(url),
            model=endpoint.model,
            provider=endpoint.provider,
            # LangChain's own client gives no key to an endpoint of one's own.
            token=key,
        )
        chat = ChatHuggingFace(**{"stream_usage": True, **options, "llm": endpoint})
    except ValueError as error:
        raise wrong_value(error, config) or Misconfigured(
            f"The model {model!r} of provider 'huggingface' can't be set up: 'model' takes a repository's name,"
            " 'endpoint_url' a URL."
        ) from error
    # Else an endpoint of one's own would be asked for a model that is called after its URL.
    chat.model_id = model
    return chat


def explain(error: Exception) -> ProviderError | None:
    if isinstance(error, TextGenerationError):
        # An `error` object amid the stream.
        return ProviderRefused() if isinstance(error, ValidationError) else ProviderUnavailable()
    return transport.explain(error)


provider = ChatProvider(build, explain=explain, promises_finish_reason=True, address_option="endpoint_url")
