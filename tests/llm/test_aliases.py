"""Models by alias, and the adapters that build them."""

import asyncio
import sys
from typing import Any

import pytest

from kernel.errors import Misconfigured
from llm import aliases
from tests.llm.conftest import Configure


async def test_a_model_is_built_once_and_anew_when_its_settings_change(configure: Configure) -> None:
    configure(default={"PROVIDER": "fake", "MODEL": "fake"})
    first = aliases.resolve()
    assert aliases.resolve("default") is first

    configure(default={"PROVIDER": "fake", "MODEL": "fake", "OPTIONS": {"text": "other"}})

    assert aliases.resolve() is not first


async def test_two_event_loops_share_no_connections(configure: Configure) -> None:
    configure(default={"PROVIDER": "openai", "MODEL": "m", "OPTIONS": {"api_key": "k", "base_url": "http://x/v1"}})

    async def build() -> Any:
        return aliases.resolve()

    mine = aliases.resolve()
    other = await asyncio.to_thread(asyncio.run, build())

    assert mine.chat.http_async_client is not other.chat.http_async_client


async def test_models_of_one_loop_share_their_connections(configure: Configure) -> None:
    options = {"api_key": "k", "base_url": "http://x/v1"}
    configure(
        default={"PROVIDER": "openai", "MODEL": "m", "OPTIONS": options},
        other={"PROVIDER": "openai", "MODEL": "n", "OPTIONS": {"api_key": "l", "base_url": "http://y/v1"}},
    )

    first: Any = aliases.resolve().chat
    second: Any = aliases.resolve("other").chat

    assert first.http_async_client is second.http_async_client


async def test_the_adapter_sets_time_bounds_and_leaves_retries_to_us(configure: Configure) -> None:
    options = {"api_key": "k", "base_url": "http://x/v1", "max_retries": 7}
    configure(default={"PROVIDER": "openai", "MODEL": "m", "OPTIONS": options, "CONNECT_TIMEOUT": 1.5})

    chat: Any = aliases.resolve().chat

    assert chat.request_timeout.connect == 1.5
    assert chat.request_timeout.read == 35
    assert chat.max_retries == 0
    assert chat.stream_usage is True


async def test_warming_up_imports_what_the_default_model_needs(configure: Configure) -> None:
    configure(default={"PROVIDER": "openai", "MODEL": "m", "OPTIONS": {"api_key": "k"}})

    await asyncio.to_thread(aliases.warm)

    assert "langchain_openai" in sys.modules


async def test_a_missing_key_says_what_to_set(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    configure(default={"PROVIDER": "openai", "MODEL": "m"})

    with pytest.raises(Misconfigured, match="OPENAI_API_KEY"):
        aliases.resolve()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize(
    ("adapter", "options", "bound"),
    [
        ("google", {"api_key": "k", "temperature": 0.1}, "timeout"),
        ("huggingface", {"api_key": "k", "temperature": 0.1}, None),
        ("huggingface", {"endpoint_url": "http://127.0.0.1:9/v1", "temperature": 0.1}, None),
    ],
)
async def test_optional_providers_are_built_from_their_options(
    configure: Configure, adapter: str, options: dict[str, Any], bound: str | None
) -> None:
    pytest.importorskip({"google": "langchain_google_genai"}.get(adapter, "langchain_huggingface"))
    configure(default={"PROVIDER": adapter, "MODEL": "some/model", "OPTIONS": options})

    chat: Any = aliases.resolve().chat

    assert chat.temperature == 0.1
    if bound:
        assert getattr(chat, bound) == 300


@pytest.mark.parametrize("adapter", ["openai", "google", "huggingface", "fake"])
async def test_an_unknown_option_is_named_by_every_adapter(configure: Configure, adapter: str) -> None:
    configure(default={"PROVIDER": adapter, "MODEL": "m", "OPTIONS": {"api_key": "k", "temprature": 1}})

    with pytest.raises(Misconfigured, match="'temprature'"):
        aliases.resolve()
