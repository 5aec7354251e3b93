"""The scripted provider in Google's protocol: `POST …:streamGenerateContent?alt=sse`."""

from typing import Any

_REASONS = {"stop": "STOP", "length": "MAX_TOKENS"}
_STATES = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 429: "RESOURCE_EXHAUSTED", 503: "UNAVAILABLE"}


class Google:
    """What tests/support/scripted_provider.py's actions come to."""

    path = ""
    done = b""

    def serves(self, path: str) -> bool:
        return ":streamGenerateContent" in path

    def asked(self, body: dict[str, Any]) -> str:
        said = [content for content in body["contents"] if content["role"] == "user"]
        return "".join(part.get("text", "") for part in said[-1]["parts"]) if said else ""

    def role(self) -> object:
        return _chunk({"text": ""})

    def token(self, piece: str) -> object:
        return _chunk({"text": piece})

    def tool(self, name: str, args: dict[str, Any]) -> object:
        return _chunk({"functionCall": {"name": name, "args": args}})

    def finish(self, reason: str) -> object:
        candidate = {"content": {"parts": [{"text": ""}], "role": "model"}, "index": 0}
        return {"candidates": [{**candidate, "finishReason": _REASONS.get(reason, reason.upper())}]}

    def usage(self, body: dict[str, Any], *, prompt: int, completion: int, cached: int) -> object | None:
        figures = {"promptTokenCount": prompt, "candidatesTokenCount": completion}
        if cached:
            figures["cachedContentTokenCount"] = cached
        return {**_chunk({"text": ""}), "usageMetadata": {**figures, "totalTokenCount": prompt + completion}}

    def error(self, code: int, message: str) -> object:
        return {"error": {"code": code, "message": message, "status": _STATES.get(code, "INTERNAL")}}


def _chunk(part: dict[str, Any]) -> dict[str, Any]:
    content = {"parts": [part], "role": "model"}
    return {"candidates": [{"content": content, "index": 0}], "modelVersion": "scripted"}
