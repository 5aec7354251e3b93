"""The usual way with Channels: a consumer that streams a LangChain chain, and `group_send` for many readers."""

import asyncio
import json
import os
from typing import Any

import django
from django.conf import settings

# Without a timeout: redis-py 8 brings one of its own, which ends the core layer's waiting reads, and their sockets.
_LAYER = {"hosts": [{"address": os.environ["REDIS_URL"], "socket_timeout": None}], "prefix": "stock"}
settings.configure(
    INSTALLED_APPS=["channels"],
    CHANNEL_LAYERS={
        "default": {
            "BACKEND": os.environ.get("LAYER", "channels.layers.InMemoryChannelLayer"),
            "CONFIG": _LAYER if "LAYER" in os.environ else {},
        }
    },
)
django.setup()

from channels.generic.websocket import AsyncWebsocketConsumer  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.urls import re_path  # noqa: E402
from langchain_core.output_parsers import StrOutputParser  # noqa: E402
from langchain_core.prompts import ChatPromptTemplate  # noqa: E402

from benchmarks.pace import due_times, stamp  # noqa: E402

_PROMPT = ChatPromptTemplate.from_messages([("system", "You are a helpful assistant."), ("user", "{question}")])


class Chat(AsyncWebsocketConsumer):  # type: ignore[misc]
    """One group for everybody."""

    async def connect(self) -> None:
        await self.channel_layer.group_add("everybody", self.channel_name)
        await self.accept()

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_discard("everybody", self.channel_name)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        order = json.loads(text_data or "")
        if order["to"] == "all":
            # In a task, because the consumer takes no event of its own group while it works here.
            self.work = asyncio.create_task(self._tell_everybody(order))
        else:
            await self._stream_the_chain(order)

    async def _stream_the_chain(self, order: dict[str, Any]) -> None:
        chain = _PROMPT | _model(order["tokens"]) | StrOutputParser()
        async for token in chain.astream({"question": "go"}):
            await self.send(json.dumps({"type": "token", "text": token}))
        await self.send(json.dumps({"type": "end"}))

    async def _tell_everybody(self, order: dict[str, Any]) -> None:
        async for due in due_times(order["tokens"], order["rate"]):
            await self.channel_layer.group_send("everybody", {"type": "chat.token", "text": stamp(due)})
        await self.channel_layer.group_send("everybody", {"type": "chat.end"})

    async def chat_token(self, event: dict[str, Any]) -> None:
        await self.send(json.dumps({"type": "token", "text": event["text"]}))

    async def chat_end(self, event: dict[str, Any]) -> None:
        await self.send(json.dumps({"type": "end"}))


def _model(tokens: int) -> Any:
    # The same model as in our own server.
    from benchmarks.clock_model import ClockModel

    return ClockModel(tokens=tokens)


application = ProtocolTypeRouter({"websocket": URLRouter([re_path("", Chat.as_asgi())])})
