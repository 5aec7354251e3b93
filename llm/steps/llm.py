"""The `llm` step: call a model with the messages so far."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Literal

from pydantic import model_validator
from typing_extensions import override

from kernel.conf import config as settings
from llm import calls, window
from llm.events import Event, Sources, Text
from llm.state import Asked, WorkflowState
from llm.steps.model import ModelStep


class LlmStep(ModelStep):
    """`model` is an alias. `provider` with `model`, or `config`, name a model as others do: an alias must have it."""

    type: Literal["llm"] = "llm"
    provider: str | None = None
    #: `{"DEFAULT_LLM_PROVIDER": …, "DEFAULT_CHAT_MODEL": {"name": …, "temperature": …}}`
    config: dict[str, Any] | None = None

    @model_validator(mode="before")
    @classmethod
    def _by_alias(cls, given: Any) -> Any:
        """Options in the words of `config`, in ours: a provider's model becomes the alias that has it."""
        if not isinstance(given, dict):
            return given
        options = dict(given)
        found = options.pop("config", None)
        if found is not None:
            options = _of_config(found) | options
        provider = options.get("provider")
        if isinstance(provider, str):
            options["model"] = _alias_of(provider, options.get("model") or "")
        return options

    @override
    async def run(self, state: WorkflowState) -> AsyncGenerator[Event, None]:
        draft = window.draft_of(state)
        shows, options, run = self.shown_in(state), self.options(), state.run
        state.asked = Asked(self.model, draft, options)
        state.text, state.output = "", None
        pieces: list[str] = []
        try:
            async with aclosing(calls.stream_answer(state, self.model, draft, options=options)) as events:
                async for event in events:
                    if event.__class__ is not Text:
                        if shows or event.__class__ is not Sources:
                            yield event
                        continue
                    pieces.append(event.text)
                    if shows:
                        run.shown = True
                        yield event
        finally:
            state.text = "".join(pieces)
        self.keep(state, state.text)


_CONFIG = {"DEFAULT_LLM_PROVIDER", "DEFAULT_CHAT_MODEL"}
_CHAT_MODEL = {"name": "model", "temperature": "temperature", "max_tokens": "max_tokens"}


def _of_config(config: Any) -> dict[str, Any]:
    if not isinstance(config, dict):
        raise ValueError(".config: an object with DEFAULT_LLM_PROVIDER and DEFAULT_CHAT_MODEL")  # noqa: TRY004  bad data
    if unknown := sorted(set(config) - _CONFIG):
        raise ValueError(f".config.{unknown[0][:60]}: not known here; known: {', '.join(sorted(_CONFIG))}")
    chat = config.get("DEFAULT_CHAT_MODEL", {})
    if not isinstance(chat, dict):
        raise ValueError(".config.DEFAULT_CHAT_MODEL: an object with 'name'")  # noqa: TRY004  bad data
    if "api_key" in chat:
        raise ValueError(".config.DEFAULT_CHAT_MODEL.api_key: keys belong to the alias in DJANGO_CHAIN, not in here")
    if unknown := sorted(set(chat) - set(_CHAT_MODEL)):
        raise ValueError(f".config.DEFAULT_CHAT_MODEL.{unknown[0][:60]}: known: {', '.join(_CHAT_MODEL)}")
    options = {_CHAT_MODEL[name]: value for name, value in chat.items()}
    if "DEFAULT_LLM_PROVIDER" in config:
        options["provider"] = config["DEFAULT_LLM_PROVIDER"]
    return options


def _alias_of(provider: str, model: object) -> str:
    """The alias in the setting that has this provider's model (any, without one); the default one before others."""
    llm = settings().llm
    names = sorted(llm.models, key=lambda name: (name != llm.default_model, name))
    for name in names:
        alias = llm.models[name]
        if alias.provider == provider and model in ("", name, alias.model):
            return name
    wanted = str(model)[:60] or "any"
    raise ValueError(
        f".model: no alias in DJANGO_CHAIN['LLM']['MODELS'] has {wanted!r} of the provider {provider[:60]!r}; define"
        f" one, as in {{'PROVIDER': {provider[:60]!r}, 'MODEL': {wanted!r}}}, and name it as 'model'"
    )
