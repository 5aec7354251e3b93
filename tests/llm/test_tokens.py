"""Counting tokens: the estimate against a real vocabulary, exact counters by name, messages with all they carry."""

import base64
import hashlib
import importlib.util
import json
import random
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import Error
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from tokenizers import Tokenizer, models, pre_tokenizers

from kernel.conf import parse
from kernel.errors import Invalid, Misconfigured
from llm import model_configs, tokens
from llm.checks import check_names
from llm.estimate import estimate
from llm.registry import tokenizers
from tests.llm.conftest import Configure

_DOCS = Path(__file__).resolve().parents[2] / "docs"
ENGLISH = [part for page in sorted(_DOCS.glob("*.md")) for part in page.read_text().split("\n## ")]
GERMAN = (
    "Die Gewährleistung beträgt vierundzwanzig Monate ab dem Tag des Kaufs. Verschleißteile wie Mahlwerk und Dichtungen"
    " sind davon ausgenommen. Schicken Sie das Gerät bitte vollständig und gut verpackt an unsere Rücknahmestelle; die"
    " Versandkosten übernehmen wir selbstverständlich. Donaudampfschifffahrtsgesellschaftskapitän."
)
OTHERS = [
    "保修期为自购买之日起二十四个月。磨损件不在保修范围内。请将设备妥善包装后寄回。",
    "保証期間は購入日から二十四か月です。消耗部品は対象外です。",
    "보증 기간은 구입일로부터 24개월입니다. 소모품은 보증에서 제외됩니다.",
    "Гарантия составляет двадцать четыре месяца после покупки.",
    "مدة الضمان أربعة وعشرون شهرا من تاريخ الشراء.",
    "👩‍🔧🎉🚀😀😃 ☕️🇩🇪 ✅✅✅",
]


@pytest.fixture(scope="module")
def vocabulary() -> Callable[[str], int]:
    """Llama 2's, which the embedding package brings along: a small one, which makes many tokens."""
    found = importlib.util.find_spec("wordllama")
    assert found is not None
    assert found.origin is not None
    file = Path(found.origin).parent / "tokenizers/l2_supercat_tokenizer_config.json"
    return tokens.named(f"file:{file}")


def samples() -> Iterator[str]:
    chance = random.Random(20)
    yield from ENGLISH
    yield GERMAN
    yield from OTHERS
    yield from (path.read_text() for path in sorted(Path(tokens.__file__).parent.glob("*.py")))
    yield json.dumps({"rows": [{"id": n, "price": n * 1.25, "name": f"part {n}", "ok": n % 2 == 0} for n in range(60)]})
    for size in (10, 100, 1000):
        yield base64.b64encode(chance.randbytes(size)).decode()
        yield chance.randbytes(size).hex()
        yield "".join(chance.choices("0123456789", k=size))
        yield "".join(chance.choices(" \n\t", k=size))
        yield "\n" * size
        yield " " * size
        yield "".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=size))
        yield "\n".join(str(uuid.UUID(int=chance.getrandbits(128))) for _ in range(size // 10))


class TestTheEstimate:
    def test_is_no_less_than_a_real_vocabulary_counts(self, vocabulary: Callable[[str], int]) -> None:
        short = [
            (text[:60], vocabulary(text), estimate(text)) for text in samples() if estimate(text) < vocabulary(text)
        ]
        assert short == []

    def test_is_not_much_more_for_prose(self, vocabulary: Callable[[str], int]) -> None:
        assert sum(map(estimate, ENGLISH)) < 1.35 * sum(map(vocabulary, ENGLISH))
        assert estimate(GERMAN) < 1.7 * vocabulary(GERMAN)

    @given(st.text())
    def test_is_never_more_than_the_bytes_and_one(self, text: str) -> None:
        assert estimate(text) <= len(text.encode()) + 1
        assert (estimate(text) == 0) == (not text)

    @given(st.text(), st.text())
    def test_grows_with_the_text(self, one: str, more: str) -> None:
        assert estimate(one + more) >= estimate(one)

    def test_takes_half_a_surrogate_pair(self) -> None:
        assert estimate("\ud83d") > 0

    def test_takes_little_time_for_a_long_prompt(self) -> None:
        text = "".join(ENGLISH)[:100_000]
        estimate(text)

        def took() -> float:
            began = time.perf_counter()
            estimate(text)
            return time.perf_counter() - began

        assert min(took() for _ in range(20)) < 0.005


def _counted(text: str) -> int:
    return tokens.TokenCounter("estimate").text(text)


class TestMessages:
    def test_every_part_that_a_model_is_told_counts(self) -> None:
        counter = tokens.TokenCounter()
        plain = counter([AIMessage("done")])
        assert counter([AIMessage("done", name="a-helper-with-a-name")]) > plain
        called = AIMessage("done", tool_calls=[{"id": "call-1", "name": "weather", "args": {"city": "Berlin" * 50}}])
        assert counter([called]) > plain + _counted("Berlin" * 50)
        assert counter([ToolMessage("rain", tool_call_id="c" * 100)]) > counter([HumanMessage("rain")]) + 20

    def test_content_in_blocks_counts_as_its_texts_and_pictures_as_pictures(self) -> None:
        counter = tokens.TokenCounter()
        text, picture = {"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": "x" * 99}}
        assert counter([HumanMessage([text, picture])]) > counter([HumanMessage("What is this?")]) + 1000
        assert counter([HumanMessage([text])]) >= counter([HumanMessage("What is this?")])

    @given(
        st.lists(
            st.one_of(
                st.builds(HumanMessage, st.text()),
                st.builds(SystemMessage, st.text()),
                st.builds(
                    lambda text: AIMessage(text, tool_calls=[{"id": "1", "name": text, "args": {"a": text}}]), st.text()
                ),
                st.builds(lambda text: ToolMessage(text, tool_call_id=text, name=text), st.text()),
                st.builds(lambda text: HumanMessage([{"type": "text", "text": text}, {"type": "image"}]), st.text()),
            )
        )
    )
    def test_no_count_exceeds_the_bound_that_spares_counting(self, messages: list[Any]) -> None:
        assert tokens.TokenCounter()(messages) <= tokens.most(messages)

    def test_a_text_that_was_counted_is_not_counted_again(self) -> None:
        asked: list[str] = []

        def create(config: dict[str, Any]) -> Callable[[str], int]:
            def count(text: str) -> int:
                asked.append(text)
                return len(text.split())

            return count

        tokenizers.add("words", create)
        try:
            counter = tokens.TokenCounter("words")
            text = "a text that is long enough to be worth it, " * 3
            assert counter.text(text) == counter.text("".join(list(text))) == 30
            assert tokens.TokenCounter("words").text(text) == 30
            assert len(asked) == 1
        finally:
            tokenizers.remove("words")


class TestNames:
    def test_a_file_counts_exactly(self, tmp_path: Path) -> None:
        made = Tokenizer(models.WordLevel({"one": 0, "two": 1, "?": 2}, unk_token="?"))
        made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        made.enable_truncation(2)
        made.save(str(tmp_path / "words.json"))
        count = tokens.named(f"file:{tmp_path}/words.json")
        assert count("one two three four") == 4
        assert count("\ud83d one") == 2

    @pytest.mark.parametrize(
        "name", ["file:", "file:words.json", "file:/nowhere/words.json", "nothing", "tiktoken:gpt9"]
    )
    def test_what_can_not_count_is_said_with_its_fix(self, name: str) -> None:
        with pytest.raises(Misconfigured):
            tokens.named(name)

    def test_a_file_that_is_no_vocabulary_is_said(self, tmp_path: Path) -> None:
        (tmp_path / "broken.json").write_text("{")
        with pytest.raises(Misconfigured, match="no tokenizer"):
            tokens.named(f"file:{tmp_path}/broken.json")

    def test_a_vocabulary_is_never_downloaded(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: Any, **__: Any) -> None:
            raise AssertionError("a connection is opened")

        monkeypatch.setattr(socket.socket, "connect", refuse)
        monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
        with pytest.raises(Misconfigured, match="nothing is downloaded"):
            tokens.named("tiktoken:cl100k_base")
        # tiktoken would throw a file away that is not what it expects, and fetch another.
        address = "https://openaipublic.blob.core.windows.net/encodings/cl100k_base.tiktoken"
        (tmp_path / hashlib.sha1(address.encode()).hexdigest()).write_text("aGk= 0")
        with pytest.raises(Misconfigured, match="nothing is downloaded"):
            tokens.named("tiktoken:cl100k_base")

    def test_check_names_the_alias_with_a_tokenizer_that_can_not_count(self, configure: Configure) -> None:
        configure(default={"PROVIDER": "fake", "MODEL": "fake", "TOKENIZER": "file:/nowhere.json"})
        faults = check_names(None)
        assert [type(fault) for fault in faults] == [Error]
        assert "'default'" in faults[0].msg
        assert "/nowhere.json" in faults[0].msg

    def test_a_stored_model_can_not_name_a_file_of_the_server(self, configure: Configure) -> None:
        configure(default={"PROVIDER": "fake", "MODEL": "fake"})
        with pytest.raises(Invalid, match="TOKENIZER"):
            model_configs.put(None, "default", user_id=None, bounds={"TOKENIZER": "file:/etc/passwd"})


class TestOfAnAlias:
    def test_a_route_is_counted_by_its_model_with_the_largest_window(self, configure: Configure) -> None:
        fake = {"PROVIDER": "fake", "MODEL": "fake"}
        configure(
            small={**fake, "CONTEXT_TOKENS": 1000},
            large={**fake, "CONTEXT_TOKENS": 9000},
            ROUTES={"both": {"MODELS": ["small", "large"]}},
        )
        assert tokens.largest("both").context_tokens == 9000
        assert tokens.counter_of("both")("a question") == tokens.TokenCounter()("a question")

    def test_a_window_is_a_positive_number(self) -> None:
        with pytest.raises(Misconfigured, match="CONTEXT_TOKENS"):
            parse({"LLM": {"MODELS": {"default": {"PROVIDER": "fake", "MODEL": "fake", "CONTEXT_TOKENS": 0}}}})
