"""The ASGI lifespan: the runtime starts with the server and ends with it."""

import logging
from typing import Any

from chat.runtime import Runtime

logger = logging.getLogger(__name__)


async def lifespan(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Start the runtime at startup, close it at shutdown (its drain has run before: see Runtime._on_signal)."""
    runtime: Runtime | None = None
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            runtime = Runtime.current()
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            if runtime is not None:
                await runtime.close()
            await send({"type": "lifespan.shutdown.complete"})
            return
