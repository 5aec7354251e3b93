"""`manage.py check` for the names in the LLM setting that only registrations know."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from django.apps import AppConfig
from django.core.checks import CheckMessage, Error, register

from kernel.conf import ModelAlias, config
from kernel.errors import Misconfigured
from llm import tokens, validators
from llm.registry import Registry, callback_handlers, middleware


@register()
def check_names(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """E002: the setting names a part that nobody registered, or gives a validator or a tokeniser wrong options."""
    try:
        llm = config().llm
    except Misconfigured:
        return []  # E001 says so
    faults = [
        *_unknown("MIDDLEWARE", llm.middleware, middleware),
        *_unknown("CALLBACKS", llm.callbacks, callback_handlers),
        *_uncounted(llm.models),
        *_invalid("INPUT_VALIDATORS", llm.input_validators),
        *_invalid("OUTPUT_VALIDATORS", llm.output_validators),
    ]
    hint = "Register it in a module that an AppConfig.ready() imports (docs/extending.md), or take it out."
    return [Error(f'DJANGO_CHAIN["LLM"]{fault}', hint=hint, id="django_chain.E002") for fault in faults]


def _unknown(key: str, names: Sequence[str], registry: Registry[Any]) -> Iterator[str]:
    known = registry.names()
    for index, name in enumerate(names):
        if name not in known:
            yield f'["{key}"][{index}]: there is no {name!r}; known: {", ".join(known) or "none"}.'


def _uncounted(models: Mapping[str, ModelAlias]) -> Iterator[str]:
    for name, alias in models.items():
        if alias.tokenizer == "estimate":
            continue  # always there; making it would only cost its imports
        try:
            tokens.named(alias.tokenizer)
        except Misconfigured as error:
            yield f'["MODELS"][{name!r}]["TOKENIZER"]: {error.message}'


def _invalid(key: str, wanted: Sequence[dict[str, Any]]) -> Iterator[str]:
    for index, options in enumerate(wanted):
        try:
            validators.build(options)
        except ValueError as error:
            yield f'["{key}"][{index}]: {error}'
