"""How many tokens a prompt has: counted by what its model's alias says, and never too few.

A counter is a function of a text, by a registered name (LLM["MODELS"][…]["TOKENIZER"]). What a chat template and a
request add to the texts is counted with room to spare; providers don't tell it.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from kernel.caches import Cache
from kernel.conf import ModelAlias
from kernel.errors import Misconfigured
from llm import effective
from llm.configuration import Configuration
from llm.registry import tokenizers

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

#: A text to the tokens that it has; at most one more than its bytes in UTF-8.
TextCounter: TypeAlias = Callable[[str], int]

#: What templates put around a message; five is the most of those that were looked at.
PER_MESSAGE = 8
#: The beginning, the opening of the answer, and the default instructions that some templates bring along.
PER_REQUEST = 40
#: An image or another part that is no text; the largest picture of the providers that tell.
PER_MEDIA = 1700
PER_TOOL_CALL = 16
#: Shorter texts are counted sooner than they are looked up.
_WORTH_KEEPING = 48

#: By tokeniser, length and hash (which differs in each process): no text is kept.
_counted: Cache[tuple[str, int, int], int] = Cache("token_counts", 16_384)
_made: Cache[tuple[str, int], TextCounter] = Cache("tokenizers", 64)

# The vocabularies of tiktoken that may be used: its name for the file (the address's hash), and the file's own hash.
_TIKTOKEN_FILES = {
    "cl100k_base": (
        "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
        "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    ),
    "o200k_base": (
        "fb374d419588a4632f3f557e76b4b70aebbca790",
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    ),
}


class TokenCounter:
    """Counts a text, or messages as a model is sent them. `counter("…")`, `counter([HumanMessage("…")])`."""

    def __init__(self, tokenizer: str = "estimate") -> None:
        """Raises Misconfigured that says what is wrong with the tokeniser."""
        self.tokenizer = tokenizer
        self._count = named(tokenizer)

    def __call__(self, of: "str | Sequence[BaseMessage]") -> int:
        if isinstance(of, str):
            return self.text(of)
        return PER_REQUEST + sum(self.message(message) for message in of)

    def text(self, text: str) -> int:
        """The tokens of a text by itself."""
        if len(text) < _WORTH_KEEPING:
            return self._count(text)
        key = (self.tokenizer, len(text), hash(text))
        known = _counted.get(key)
        return _counted.put(key, self._count(text)) if known is None else known

    def message(self, message: "BaseMessage") -> int:
        """The tokens of a message with what stands around it."""
        content = message.content
        texts, more = ([content], PER_MESSAGE) if isinstance(content, str) else _parts(content)
        for text in texts if message.type in ("human", "system") else [*texts, *_beside(message)]:
            more += self.text(text)
        return more + PER_TOOL_CALL * len(getattr(message, "tool_calls", ()))


def most(messages: "Sequence[BaseMessage]") -> int:
    """A bound that no count of `messages` exceeds, found without counting: a token is at least one byte."""
    found = PER_REQUEST + (PER_MESSAGE + 1) * len(messages)
    for message in messages:
        content = message.content
        if isinstance(content, str):
            found += _bytes(content)
        else:
            texts, more = _parts(content)
            found += more + sum(_bytes(text) + 1 for text in texts)
        if message.type not in ("human", "system"):
            found += sum(_bytes(text) + 1 for text in _beside(message))
            found += PER_TOOL_CALL * len(getattr(message, "tool_calls", ()))
    return found


def counter_of(alias: str = "", configuration: Configuration | None = None) -> TokenCounter:
    """How tokens of a model are counted; of a route's models, by the one with the largest window.

    Without a configuration the setting alone is asked. Raises Misconfigured.
    """
    return TokenCounter(largest(alias, configuration).tokenizer)


def largest(alias: str = "", configuration: Configuration | None = None) -> ModelAlias:
    """A model as it is written down; of a route the one that takes the longest prompt, unknown windows first.

    Raises Misconfigured.
    """
    found = effective.find(alias, configuration)
    if found.bounds is not None:
        return found.bounds
    assert found.route is not None
    members = [effective.find(name, configuration).bounds for name in found.route.models]
    models = [bounds for bounds in members if bounds is not None]
    if not models:
        raise Misconfigured(f"The route {found.alias!r} has no model.")
    return max(models, key=lambda bounds: bounds.context_tokens or float("inf"))


def named(tokenizer: str) -> TextCounter:
    """The counter of that name, made once; what stands behind a colon is its argument. Raises Misconfigured."""
    key = (tokenizer, tokenizers.revision)
    made = _made.get(key)
    if made is None:
        name, _, argument = tokenizer.partition(":")
        made = _made.put(key, tokenizers.get(name)({"argument": argument}))
    return made


def create_from_file(config: Mapping[str, Any]) -> TextCounter:
    """`file:/path/tokenizer.json`: what Hugging Face's `tokenizers` reads."""
    try:
        # Optional: an alias that names a file asks for it.
        from tokenizers import Tokenizer  # noqa: PLC0415
    except ImportError as error:
        raise Misconfigured("The tokenizer 'file' needs 'tokenizers', which is not installed.") from error
    path = Path(config["argument"])
    if not path.is_absolute() or not path.is_file():
        raise Misconfigured(f"There is no file {str(path)!r}; give TOKENIZER as 'file:/path/tokenizer.json'.")
    try:
        loaded = Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises bare ones
        raise Misconfigured(f"The file {str(path)!r} is no tokenizer.json.") from error
    loaded.no_truncation()
    loaded.no_padding()
    return lambda text: len(loaded.encode(_encodable(text), add_special_tokens=False).ids)


def create_tiktoken(config: Mapping[str, Any]) -> TextCounter:
    """`tiktoken:o200k_base`, with its vocabulary in TIKTOKEN_CACHE_DIR: tiktoken by itself would download it."""
    name = config["argument"]
    if name not in _TIKTOKEN_FILES:
        raise Misconfigured(f"There is no encoding {name!r} here; known: {', '.join(sorted(_TIKTOKEN_FILES))}.")
    file, digest = _TIKTOKEN_FILES[name]
    path = Path(os.environ.get("TIKTOKEN_CACHE_DIR", "")) / file
    # Unless the file is what tiktoken expects, it deletes it and fetches another.
    if not path.is_absolute() or not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
        raise Misconfigured(
            f"The vocabulary of {name!r} is not in TIKTOKEN_CACHE_DIR, and nothing is downloaded while the server runs:"
            " fetch it beforehand (docs/providers.md), or count with 'estimate'."
        )
    # A second of loading that only those pay who ask for it.
    import tiktoken  # noqa: PLC0415

    encoding = tiktoken.get_encoding(name)
    return lambda text: len(encoding.encode_ordinary(_encodable(text)))


def _parts(content: Sequence[Any]) -> tuple[list[str], int]:
    """The texts of a list of content blocks, and what all else in it comes to."""
    texts = [block if isinstance(block, str) else str(block.get("text", "")) for block in content]
    other = sum(not isinstance(block, str) and block.get("type") not in ("text", None) for block in content)
    return texts, PER_MESSAGE + PER_MEDIA * other


def _beside(message: "BaseMessage") -> list[str]:
    """What a model is told of an answer or a tool's result beside its text."""
    texts = [str(name)] if (name := message.name) else []
    if identity := getattr(message, "tool_call_id", ""):
        texts.append(str(identity))
    for call in getattr(message, "tool_calls", ()):
        texts += [str(call["id"] or ""), str(call["name"]), json.dumps(call["args"], default=repr)]
    return texts


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _encodable(text: str) -> str:
    """Half of a surrogate pair is no text for these libraries."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
