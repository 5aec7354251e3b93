"""What a workflow's run tells its caller, in order. Values: immutable, free of LangChain and of transport.

One run yields any number of `Step` and `Sources`, and for each model call `ModelStarted`, `Text`…, `ModelFinished`.
A failed call raises a ProviderError after its last `Text` and yields no `ModelFinished`.
They are msgspec structs rather than dataclasses: one `Text` a token is made, and a struct costs a sixth.
"""

from typing import Any, Literal, TypeAlias

from msgspec import Struct, field


class Step(Struct, frozen=True):
    """Progress of a step that people see (`retrieve`, a queue, a tool)."""

    name: str
    state: Literal["started", "finished", "queued"]
    detail: dict[str, Any] = field(default_factory=dict)


class Sources(Struct, frozen=True):
    """The passages in the prompt. A hit: id, document_id, title, source, text, score, start, end, n (its mark)."""

    hits: tuple[dict[str, Any], ...]


class ModelStarted(Struct, frozen=True):
    """A model is called now. `messages` are `{"role", "content"}`; `parameters` hold no secret."""

    alias: str
    provider: str
    model: str
    parameters: dict[str, Any]
    messages: list[dict[str, Any]]


class Text(Struct, frozen=True, gc=False):
    """The next piece of the answer: never empty, and always storable (see kernel.text)."""

    text: str


class ModelFinished(Struct, frozen=True):
    """The call ended well. Tokens are the provider's count, or ours if `estimated`; times are milliseconds.

    `first_token_ms` is None if the answer is empty. `finish_reason` is the provider's word (`stop`, `length`, …);
    `length` also when LLM.MAX_ANSWER_CHARS ended the answer.
    """

    input_tokens: int
    output_tokens: int
    estimated: bool
    first_token_ms: int | None
    latency_ms: int
    finish_reason: str = "stop"


Event: TypeAlias = Step | Sources | ModelStarted | Text | ModelFinished
