"""Embedding providers, and the Embedder around them."""

import json
import math
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from kernel.caches import Cache
from kernel.conf import Embeddings
from kernel.errors import Misconfigured
from llm import aliases
from llm.embeddings import embedder as module
from llm.embeddings.embedder import Embedder, embedder
from llm.errors import ProviderMisconfigured, ProviderRateLimited
from llm.registry import embedding_providers


def cosine(left: list[float], right: list[float]) -> float:
    return math.fsum(a * b for a, b in zip(left, right, strict=True))


class TestWordLlama:
    @pytest.fixture
    def words(self) -> Embedder:
        return Embedder(Embeddings())

    async def test_it_works_without_a_network(self, words, monkeypatch):
        def refuse(*_):
            raise AssertionError("asked the network")

        monkeypatch.setattr(socket.socket, "connect", refuse)
        assert len(await words.query("hello")) == 256

    async def test_near_meanings_are_near(self, words):
        question = await words.query("How long is the warranty?")
        near, far = await words.documents(["The guarantee lasts two years.", "Rinse the milk hose every day."])
        assert cosine(question, near) > cosine(question, far) + 0.2

    async def test_a_text_without_a_token_is_a_vector_all_the_same(self, words):
        vectors = await words.documents(["", " ", "\ufffd", "🙂", "ok"])
        assert all(math.isfinite(part) for vector in vectors for part in vector)
        assert vectors[0] == [0.0] * 256

    async def test_a_dimension_that_the_wheel_lacks_says_which_there_are(self):
        with pytest.raises(Misconfigured, match="256, 128 or 64"):
            await Embedder(Embeddings(dimension=300)).query("hello")
        assert len(await Embedder(Embeddings(dimension=64)).query("hello")) == 64


async def test_the_fake_gives_a_text_the_same_vector_everywhere():
    fake = Embedder(Embeddings(provider="fake", dimension=16))
    first, second, other = await fake.documents(["the sky", "The SKY!", "a stone"])
    assert first == second != other
    assert first[:2] == pytest.approx([-0.0040014, 0.1877203], abs=1e-6)
    assert cosine(first, first) == pytest.approx(1)


class Backend:
    """Counts its calls; its vectors have the length that a test gives it."""

    def __init__(self, config):
        self.calls: list[int | str] = []
        self.length = config["dimension"] + config.get("extra", 0)

    def embed_documents(self, texts):
        self.calls.append(len(texts))
        return [[1.0] * self.length for _ in texts]

    def embed_query(self, text):
        self.calls.append(f"{text} in {threading.current_thread().name}")
        return [1.0] * self.length


@pytest.fixture
def made() -> Iterator[list[Backend]]:
    backends: list[Backend] = []

    @embedding_providers.register("counted")
    def create(config):
        backends.append(Backend(config))
        return backends[-1]

    yield backends
    embedding_providers.remove("counted")


async def test_documents_are_embedded_in_batches(made):
    counted = Embedder(Embeddings(provider="counted", dimension=4, batch_size=10))
    assert len(await counted.documents(["x"] * 25)) == 25
    assert await counted.documents([]) == []
    assert made[0].calls == [10, 10, 5]


async def test_a_question_is_embedded_once_off_the_event_loop(made, monkeypatch):
    monkeypatch.setattr(module, "_queries", Cache("query_embeddings_of_a_test", 2))
    counted = Embedder(Embeddings(provider="counted", dimension=4))
    for question in ("a", "b", "a", "c", "a", "b"):
        await counted.query(question)
    assert [call[0] for call in made[0].calls] == ["a", "b", "c", "b"]
    assert all("chain-embed" in call for call in made[0].calls)


async def test_a_wrong_dimension_says_which_it_is(made):
    counted = Embedder(Embeddings(provider="counted", dimension=4, options={"extra": 3}))
    with pytest.raises(Misconfigured, match=r"dimension 7, but EMBEDDINGS\['DIMENSION'\] is 4"):
        await counted.query("a")


async def test_an_unknown_provider_names_the_known_ones():
    with pytest.raises(Misconfigured, match="fake, openai, wordllama"):
        await Embedder(Embeddings(provider="nobody")).query("a")


def test_the_process_has_one_embedder_until_the_settings_change(settings):
    first = embedder()
    assert embedder() is first
    settings.DJANGO_CHAIN = settings.DJANGO_CHAIN | {"EMBEDDINGS": {"PROVIDER": "fake", "DIMENSION": 8}}
    assert embedder().model == "fake:l2_supercat_256"
    assert embedder().dimension == 8


class TestOpenAI:
    @pytest.fixture
    def server(self) -> Iterator[ThreadingHTTPServer]:
        class Handler(BaseHTTPRequestHandler):
            status = 200

            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self.server.asked = asked
                vectors = [
                    {"object": "embedding", "index": n, "embedding": [0.6, 0.8]} for n in range(len(asked["input"]))
                ]
                usage = {"prompt_tokens": 1, "total_tokens": 1}
                body = {"object": "list", "data": vectors, "model": "m", "usage": usage}
                sent = json.dumps(body).encode()
                self.send_response(Handler.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent)

            def log_message(self, *_) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            server.handler = Handler
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield server
            server.shutdown()

    @pytest.fixture
    async def remote(self, server):
        options = {"base_url": f"http://127.0.0.1:{server.server_port}/v1", "api_key": "k", "max_retries": 0}
        yield Embedder(Embeddings(provider="openai", model="m", dimension=2, options=options))
        await aliases.close()

    async def test_it_asks_the_server_for_its_dimension(self, remote, server):
        assert await remote.documents(["a", "b"]) == [[0.6, 0.8]] * 2
        assert (server.asked["input"], server.asked["model"], server.asked["dimensions"]) == (["a", "b"], "m", 2)

    @pytest.mark.parametrize(("status", "error"), [(401, ProviderMisconfigured), (429, ProviderRateLimited)])
    async def test_a_refusal_is_a_typed_failure(self, remote, server, status, error):
        server.handler.status = status
        with pytest.raises(error):
            await remote.query("a")

    async def test_without_a_key_it_says_what_is_missing(self, monkeypatch):
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        with pytest.raises(Misconfigured, match="api_key"):
            await Embedder(Embeddings(provider="openai", model="m", dimension=2)).query("a")
