"""What an adapter says about its provider, and what it gets from an alias."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from kernel.conf import ModelAlias
from kernel.errors import Misconfigured
from llm.errors import ProviderError

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from pydantic import BaseModel


class ProviderConfig(dict[str, Any]):
    """The one argument of a provider's factory: `model` and the alias's options, so that `Model(**config)` works.

    An adapter that can map time bounds finds them in `bounds`. Retries are not its business: llm.model_call retries,
    and only before the first token.
    """

    def __init__(self, alias: ModelAlias) -> None:
        super().__init__({"model": alias.model, **alias.options})
        self.bounds = alias

    def __repr__(self) -> str:
        """Without the options: one of them is the key."""
        return f"ProviderConfig({self.bounds.provider}: {self.bounds.model})"

    @property
    def read_timeout(self) -> float:
        """A backstop in seconds for clients that take one bound for each read; the exact bounds are kept by us."""
        return max(self.bounds.first_token_timeout, self.bounds.between_tokens_timeout) + 5


def keep_to_schema(schema: Any) -> dict[str, Any]:
    """The call's options by which OpenAI's protocol has an answer keep to a JSON schema."""
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}}


def _nothing_special(_: Exception) -> ProviderError | None:
    return None


@dataclass(frozen=True, slots=True)
class ChatProvider:
    """An adapter. A plain factory function is one too, with the defaults."""

    build: Callable[[ProviderConfig], "BaseChatModel"]
    #: Tells the SDK's own exceptions apart; None leaves it to llm.providers.failures.
    explain: Callable[[Exception], ProviderError | None] = _nothing_special
    #: A stream that ends without a finish reason was cut.
    promises_finish_reason: bool = False
    #: The call option that bounds the answer's tokens.
    output_limit: str = "max_tokens"
    #: The call's options by which an answer keeps to a JSON schema. A provider that can't leaves it to the parser.
    keep_to_schema: Callable[[Any], dict[str, Any]] = keep_to_schema
    #: The options that take a stored model's key and address.
    key_option: str = "api_key"
    address_option: str = "base_url"
    #: Without a key the SDK refuses, or looks for one in the environment.
    needs_key: bool = True

    def __call__(self, config: dict[str, Any]) -> "BaseChatModel":
        return self.build(config)  # type: ignore[arg-type]  # llm.aliases always passes a ProviderConfig


def wrong_value(error: ValueError, config: ProviderConfig) -> Misconfigured | None:
    """What to say of a value that pydantic refuses, without the value; None: it's something else."""
    faults = error.errors(include_input=False, include_url=False) if isinstance(error, ValidationError) else []
    named = [fault for fault in faults if fault["loc"] and fault["type"] != "value_error"]
    if not named:
        return None
    return Misconfigured(
        f"The LLM provider of model {config.bounds.model!r} can't use its option {named[0]['loc'][0]!r}:"
        f" {named[0]['msg']}."
    )


def check_options(config: ProviderConfig, model_class: "type[BaseModel]") -> None:
    """Raise Misconfigured for an option that the class does not know; LangChain would pass it on or drop it."""
    known: set[str] = set()
    for name, field in model_class.model_fields.items():
        known |= {name, *([field.alias] if field.alias else [])}
    unknown = sorted(set(config) - known)
    if unknown:
        raise Misconfigured(
            f"The LLM provider of model {config.bounds.model!r} has no option {unknown[0]!r};"
            f" {model_class.__name__} takes: {', '.join(sorted(known))}."
        )
