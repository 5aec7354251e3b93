"""The ASGI edge of a chat socket: frames in, frames and typed closes out. Rules are in chat.connection."""

from collections.abc import Mapping
from typing import Any

from channels.consumer import AsyncConsumer
from channels.exceptions import StopConsumer
from django.conf import settings
from django.http.cookie import parse_cookie

from chat.connection import Connection
from chat.replay import Credentials
from chat.runtime import Runtime
from chat.workflow_connection import WorkflowConnection
from kernel.conf import config


class ChatConsumer(AsyncConsumer):  # type: ignore[misc]  # Channels ships no types
    """A socket at `/ws/chat/<session_id>/`."""

    # No layer channel: with one, losing Redis would end every socket, and the hub carries our events.
    channel_layer_alias = ""
    connection_class = Connection

    async def dispatch(self, message: dict[str, Any]) -> None:
        # Channels hops to a thread before each event to close database connections; this task never holds one.
        match message["type"]:
            case "websocket.connect":
                await self._connect()
            case "websocket.receive":
                await self._connection.receive(message.get("text"))
            case "websocket.disconnect":
                await self._connection.leave()
                raise StopConsumer

    async def _connect(self) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in self.scope["headers"]}
        allowed = origin_allowed(self.scope, headers)
        cookie = parse_cookie(headers.get("cookie", "")).get(settings.SESSION_COOKIE_NAME, "") if allowed else ""
        self._connection = self.connection_class(
            Runtime.current(),
            wanted=self.scope["url_route"]["kwargs"].get("session_id", ""),
            credentials=Credentials(session_key=cookie),
            origin_allowed=allowed,
            send=self._send_text,
            close=self._send_close,
        )
        await self.send({"type": "websocket.accept"})
        self._connection.open()

    async def _send_text(self, frame: str) -> None:
        await self.base_send({"type": "websocket.send", "text": frame})

    async def _send_close(self, code: int, reason: str) -> None:
        await self.base_send({"type": "websocket.close", "code": code, "reason": reason})


class WorkflowConsumer(ChatConsumer):
    """A socket at `/ws/workflows/`."""

    connection_class = WorkflowConnection


def origin_allowed(scope: Mapping[str, Any], headers: Mapping[str, str]) -> bool:
    """Whether this socket may use its cookie: no Origin (not a browser's page), the page's own, or one in the setting.

    Browsers send cookies with sockets that any page opens; the exact origin is what tells our pages from others.
    """
    origin = headers.get("origin")
    if origin is None:
        return True
    allowed = config().chat.allowed_origins
    if allowed:
        return origin in allowed
    scheme = "https" if scope.get("scheme") in ("wss", "https") else "http"
    return origin == f"{scheme}://{headers.get('host', '')}"
