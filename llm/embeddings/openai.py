"""Provider `openai`: OpenAI's embeddings and everything that speaks its protocol (`base_url`)."""

from typing import Any

import openai
from langchain_openai import OpenAIEmbeddings

from kernel.errors import Misconfigured
from llm import http

#: Seconds. A query is embedded while a person waits.
TIMEOUT = 20.0


def create(config: dict[str, Any]) -> OpenAIEmbeddings:
    """Options: those of OpenAIEmbeddings (`api_key`, `base_url`, `timeout`, …)."""
    options = dict(config)
    dimension = options.pop("dimension")
    defaults = {
        "dimensions": dimension,
        "timeout": TIMEOUT,
        "max_retries": 2,
        # Counting tokens would download a vocabulary; our chunks are far below the limit.
        "check_embedding_ctx_length": False,
        "http_async_client": http.async_client(),
        "http_client": http.sync_client(),
    }
    try:
        return OpenAIEmbeddings(**{**defaults, **options})
    except openai.OpenAIError as error:
        raise Misconfigured(
            "The embedding provider 'openai' can't be set up: give EMBEDDINGS['OPTIONS'] an 'api_key' or set"
            " OPENAI_API_KEY (any text will do for a local server)."
        ) from error
