"""Pinecone's data plane over HTTP, as far as the backend uses it: exact cosine, metadata filters, namespaces, faults.

    with ScriptedPinecone(dimension=6) as pinecone:
        pinecone.fail("/query", 429, headers={"Retry-After": "0"})
        # … use pinecone.host with the real SDK

It is a stand-in: what it accepts and refuses follows Pinecone's published API, not its implementation.
"""

import json
import math
import threading
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

API_KEY = "pc-test-not-a-key"
_MOST_METADATA = 40_960
_MOST_BODY = 2_097_152
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "$gt": lambda a, b: a > b,
    "$gte": lambda a, b: a >= b,
    "$lt": lambda a, b: a < b,
    "$lte": lambda a, b: a <= b,
}


class Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Fault:
    """What happens to a request instead of an answer: an error's status, "slow" or "cut"."""

    path: str
    kind: int | str
    headers: dict[str, str] = field(default_factory=dict)


class ScriptedPinecone:
    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self.metric = "cosine"
        self.namespaces: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
        self.requests: list[tuple[str, str]] = []
        #: Held while writes are acknowledged and not yet visible.
        self._held: deque[Callable[[], None]] | None = None
        self._faults: deque[Fault] = deque()
        self._lock = threading.RLock()
        self.stopping = threading.Event()
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def host(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._thread.join(5)
        self._server.server_close()

    def fail(self, path: str, kind: int | str, *, times: int = 1, headers: dict[str, str] | None = None) -> None:
        """The next `times` requests of this path fail so."""
        self._faults.extend(Fault(path, kind, headers or {}) for _ in range(times))

    def heal(self) -> None:
        self._faults.clear()

    def hold(self) -> None:
        """From now on writes are acknowledged and not seen, until `settle`."""
        self._held = deque()

    def settle(self) -> None:
        with self._lock:
            held, self._held = self._held or deque(), None
            for write in held:
                write()

    def _write(self, change: Callable[[], None]) -> None:
        if self._held is None:
            change()
        else:
            self._held.append(change)

    # The API, by method and path.

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            self.requests.append((method, path))
            if path.startswith("/indexes/"):
                return self._describe(path.rsplit("/", 1)[1])
            if path.startswith("/namespaces/"):
                return self._delete_namespace(unquote(path.rsplit("/", 1)[1]))
            return {
                ("POST", "/vectors/upsert"): self._upsert,
                ("POST", "/query"): self._query,
                ("POST", "/vectors/delete"): self._delete,
                ("POST", "/describe_index_stats"): lambda _: self._stats(),
                ("GET", "/vectors/fetch"): lambda _: self._fetch(query),
                ("GET", "/vectors/list"): lambda _: self._list(query),
            }[method, path](body)

    def _upsert(self, body: dict[str, Any]) -> dict[str, Any]:
        vectors, namespace = body["vectors"], body.get("namespace", "")
        if len(vectors) > 1000:
            raise Refused(400, "too many vectors")
        for vector in vectors:
            self._check(vector["values"])
            if not any(vector["values"]):
                raise Refused(400, "Dense vectors must contain at least one non-zero value.")
            _check_metadata(vector.get("metadata") or {})

        def change() -> None:
            for vector in vectors:
                self.namespaces[namespace][vector["id"]] = vector

        self._write(change)
        return {"upsertedCount": len(vectors)}

    def _query(self, body: dict[str, Any]) -> dict[str, Any]:
        self._check(body["vector"])
        held = self.namespaces.get(body.get("namespace", ""), {}).values()
        found = [
            {"id": each["id"], "score": _cosine(body["vector"], each["values"])}
            for each in held
            if _matches(body.get("filter") or {}, each.get("metadata") or {})
        ]
        found.sort(key=lambda each: -each["score"])
        return {"matches": found[: body["topK"]], "namespace": body.get("namespace", ""), "usage": {"readUnits": 1}}

    def _delete(self, body: dict[str, Any]) -> dict[str, Any]:
        namespace = body.get("namespace", "")
        if namespace not in self.namespaces:
            raise Refused(404, "Namespace not found")
        if len(body["ids"]) > 1000:
            raise Refused(400, "too many ids")

        def change() -> None:
            for each in body["ids"]:
                self.namespaces[namespace].pop(each, None)

        self._write(change)
        return {}

    def _delete_namespace(self, namespace: str) -> dict[str, Any]:
        if self.namespaces.pop(namespace, None) is None:
            raise Refused(404, "Namespace not found")
        return {}

    def _stats(self) -> dict[str, Any]:
        counts = {name: {"vectorCount": len(held)} for name, held in self.namespaces.items()}
        total = sum(len(held) for held in self.namespaces.values())
        return {
            "namespaces": counts,
            "dimension": self.dimension,
            "indexFullness": 0.0,
            "totalVectorCount": total,
            "metric": self.metric,
            "vectorType": "dense",
        }

    def _fetch(self, query: dict[str, list[str]]) -> dict[str, Any]:
        held = self.namespaces.get(query.get("namespace", [""])[0], {})
        return {"vectors": {each: held[each] for each in query["ids"] if each in held}, "namespace": ""}

    def _list(self, query: dict[str, list[str]]) -> dict[str, Any]:
        names = sorted(self.namespaces.get(query.get("namespace", [""])[0], {}))
        names = [name for name in names if name.startswith(query.get("prefix", [""])[0])]
        start, limit = int(query.get("paginationToken", ["0"])[0]), int(query.get("limit", ["100"])[0])
        page = {"vectors": [{"id": name} for name in names[start : start + limit]], "namespace": ""}
        return page | ({"pagination": {"next": str(start + limit)}} if start + limit < len(names) else {})

    def _describe(self, name: str) -> dict[str, Any]:
        if name != "scripted":
            raise Refused(404, "Resource not found")
        vectors = {"type": "dense_vector", "dimension": self.dimension, "metric": self.metric}
        return {
            "name": name,
            "host": self.host,
            "dimension": self.dimension,
            "metric": self.metric,
            "vector_type": "dense",
            "deletion_protection": "disabled",
            "status": {"ready": True, "state": "Ready"},
            "spec": {"serverless": {"cloud": "aws", "region": "us-east-1"}},
            "schema": {"fields": {"values": vectors}},
            "deployment": {"deployment_type": "managed", "cloud": "aws", "region": "us-east-1"},
        }

    def _check(self, values: list[float]) -> None:
        if len(values) != self.dimension:
            raise Refused(400, f"Vector dimension {len(values)} does not match the dimension of the index")

    def fault(self, path: str) -> Fault | None:
        with self._lock:
            found = next((each for each in self._faults if each.path == path), None)
            if found is not None:
                self._faults.remove(found)
                self.requests.append(("FAULT", path))
            return found


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, pinecone: ScriptedPinecone) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pinecone = pinecone


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: Any) -> None:
        pass

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def do_GET(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(size)
        url = urlsplit(self.path)
        if (fault := self.server.pinecone.fault(url.path)) is not None:
            self._fail(fault)
            return
        try:
            if self.headers.get("Api-Key") != API_KEY:
                raise Refused(401, "Invalid API Key")
            if size > _MOST_BODY:
                raise Refused(413, "too large")
            body = json.loads(raw) if raw else {}
            self._send(200, self.server.pinecone.answer(self.command, url.path, parse_qs(url.query), body))
        except Refused as refused:
            error = {"code": "INVALID_ARGUMENT", "message": str(refused)}
            self._send(refused.status, {"error": error, "status": refused.status})

    do_POST = do_DELETE = do_GET  # noqa: N815  the names are the base class's

    def _send(self, status: int, content: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        fixed = {"Content-Type": "application/json", "Content-Length": str(len(data))}
        for name, value in (fixed | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _fail(self, fault: Fault) -> None:
        if isinstance(fault.kind, int):
            self._send(fault.kind, {"error": {"code": "FAULT", "message": "scripted"}}, fault.headers)
            return
        if fault.kind == "slow":
            self.server.pinecone.stopping.wait(20)
        # Half an answer.
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b'{"matches": [')


def _cosine(a: list[float], b: list[float]) -> float:
    lengths = math.hypot(*a) * math.hypot(*b)
    return math.fsum(x * y for x, y in zip(a, b, strict=True)) / lengths if lengths else 0.0


def _check_metadata(metadata: dict[str, Any]) -> None:
    if len(json.dumps(metadata).encode()) > _MOST_METADATA:
        raise Refused(400, "Metadata size exceeds the limit of 40960 bytes per vector")
    for name, value in metadata.items():
        texts = isinstance(value, list) and all(isinstance(each, str) for each in value)
        if name.startswith("$") or not (texts or isinstance(value, str | int | float | bool)):
            raise Refused(400, f"Metadata value must be a string, number, boolean or list of strings: {name}")


def _matches(where: dict[str, Any], metadata: dict[str, Any]) -> bool:
    return all(_holds(name, test, metadata) for name, test in where.items())


def _holds(name: str, test: Any, metadata: dict[str, Any]) -> bool:
    if name in ("$and", "$or"):
        return (all if name == "$and" else any)(_matches(each, metadata) for each in test)
    if name.startswith("$"):
        raise Refused(400, f"{name} is not a valid operator")
    tests = test if isinstance(test, dict) else {"$eq": test}
    return all(_compares(metadata.get(name), operator, value) for operator, value in tests.items())


def _compares(found: Any, operator: str, value: Any) -> bool:
    if operator in ("$eq", "$ne"):
        return _same(found, value) is (operator == "$eq")
    if operator in ("$in", "$nin"):
        if not all(isinstance(each, str | int | float) and not isinstance(each, bool) for each in value):
            raise Refused(400, f"{operator} takes strings and numbers")
        return any(_same(found, each) for each in value) is (operator == "$in")
    if operator == "$exists":
        return (found is not None) is value
    if operator not in _COMPARE or isinstance(value, str | bool):
        raise Refused(400, f"the {operator} operator must be followed by a number")
    return isinstance(found, int | float) and not isinstance(found, bool) and _COMPARE[operator](found, value)


def _same(found: Any, value: Any) -> bool:
    if isinstance(found, list):
        return value in found
    return type(found) is type(value) and found == value if bool in (type(found), type(value)) else found == value
