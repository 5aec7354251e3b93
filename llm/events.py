"""What a workflow's run tells its caller, in order. Values: immutable, free of LangChain and of transport.

One run yields any number of `Step` and `Sources`, for each model call `ModelStarted` and then `ModelFinished` or
`ModelFailed`, and the answer in pieces as `Text`; at most one `Output`, at its end. A run that fails raises.
Text of a call that nobody is to see (in a parallel branch, before a later call) is not yielded.
They are msgspec structs rather than dataclasses: one `Text` a token is made, and a struct costs a sixth.
"""

from typing import Any, Literal, TypeAlias

from msgspec import Struct, field


class Step(Struct, frozen=True):
    """Progress of a step that people see (`retrieve`, a queue, a tool). `detail` is shown: no secret, no text."""

    name: str
    state: Literal["started", "finished", "queued", "failed"]
    detail: dict[str, Any] = field(default_factory=dict)


class Sources(Struct, frozen=True):
    """The passages in the prompt. A hit: id, document_id, title, source, text, score, start, end, n (its mark)."""

    hits: tuple[dict[str, Any], ...]


class ModelStarted(Struct, frozen=True):
    """A model is called now. `messages` are `{"role", "content"}`; `parameters` hold no secret; `call` counts."""

    alias: str
    provider: str
    model: str
    parameters: dict[str, Any]
    messages: list[dict[str, Any]]
    call: int = 0


class Text(Struct, frozen=True, gc=False):
    """The next piece of the answer: never empty, and always storable (see kernel.text)."""

    text: str


class ToolCalls(Struct, frozen=True):
    """The model asks for tools that it was offered. A call: `{"id", "name", "args"}`. Its ModelFinished follows."""

    calls: tuple[dict[str, Any], ...]
    call: int = 0


class ModelFinished(Struct, frozen=True):
    """The call ended well. Tokens are the provider's count, or ours if `estimated`; times are milliseconds.

    `first_token_ms` is None if the answer is empty. `finish_reason` is the provider's word (`stop`, `length`, …);
    `length` also when LLM.MAX_ANSWER_CHARS ended the answer. `cached`: no provider was asked.
    """

    input_tokens: int
    output_tokens: int
    estimated: bool
    first_token_ms: int | None
    latency_ms: int
    finish_reason: str = "stop"
    cached_input_tokens: int = 0
    call: int = 0
    cached: bool = False


class ModelFailed(Struct, frozen=True):
    """The call failed, and another one follows (a retry, another model) or the run fails. `code`: of llm.errors."""

    code: str
    call: int = 0


class Output(Struct, frozen=True):
    """What the run comes to: the last parser's value, else the answer's text. Plain JSON."""

    value: Any


Event: TypeAlias = Step | Sources | ModelStarted | Text | ToolCalls | ModelFinished | ModelFailed | Output
