"""The `prompt` step: the messages for the next model call.

Variables of every prompt: `question` (also `input`), `passages` (also `context`) and the placeholder `history`.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, Literal, Self

from langchain_core.messages import BaseMessage
from pydantic import Field, ValidationInfo, field_validator, model_validator

from llm import prompts
from llm.configuration import PromptVersion
from llm.errors import PromptInvalid
from llm.events import Event
from llm.prompts import ChatTemplate
from llm.state import WorkflowState
from llm.steps.base import Step
from llm.window import Draft

# Measured with a model of 135M parameters: it loses the thread in long instructions, takes marks before a passage for a
# list to go on with, and finds the fact most often in bare text above "Question:". The passages stand beside the
# question, not in the system message: what comes before then stays the same, and the server's prompt cache serves it.
_HISTORY = {"MessagesPlaceholder": "history"}
_CITE = "You answer questions briefly from the given text, and end each sentence with its mark, like [1]."
GROUNDED_PROMPT: list[dict[str, Any]] = [
    {"role": "system", "content": _CITE},
    _HISTORY,
    {"role": "user", "content": "{passages}\n\nQuestion: {question}"},
]
PLAIN_PROMPT: list[dict[str, Any]] = [
    {"role": "system", "content": "You are a helpful assistant. Answer briefly."},
    _HISTORY,
    {"role": "user", "content": "{question}"},
]
_GROUNDED, _PLAIN = prompts.parse_messages(GROUNDED_PROMPT), prompts.parse_messages(PLAIN_PROMPT)


class PromptStep(Step):
    """Give `name` (a stored prompt), `template` (a text) or `messages`; or none: the built-in prompts."""

    type: Literal["prompt"] = "prompt"
    #: A prompt of this workspace: this `version`, or else the active one.
    name: str | None = Field(default=None, min_length=1, max_length=255)
    version: int | None = Field(default=None, ge=1)
    #: Before the templates, which are read by it.
    template_format: Literal["f-string", "mustache"] = "f-string"
    template: str | None = None
    messages: list[dict[str, Any]] | None = None
    #: Used in place of `messages` when no passage was found.
    without_passages: list[dict[str, Any]] | None = None
    langchain_type: Literal["PromptTemplate", "ChatPromptTemplate"] | None = None
    input_variables: list[str] | None = None
    #: Variables that may be missing; they are then empty.
    optional_variables: list[str] | None = None
    #: What a passage may take of the prompt, in characters.
    passage_chars: int = Field(default=600, ge=50, le=20_000)

    @field_validator("template")
    @classmethod
    def _parses(cls, template: str | None, info: ValidationInfo) -> str | None:
        if template is not None:
            prompts.parse_text(template, info.data.get("template_format", "f-string"))
        return template

    @field_validator("messages", "without_passages")
    @classmethod
    def _messages_parse(
        cls, messages: list[dict[str, Any]] | None, info: ValidationInfo
    ) -> list[dict[str, Any]] | None:
        if messages is not None:
            prompts.parse_messages(messages, info.data.get("template_format", "f-string"))
        return messages

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [key for key in ("name", "template", "messages") if getattr(self, key) is not None]
        if len(given) > 1:
            raise ValueError(f"give {' or '.join(map(repr, given))}, not both")
        if self.version is not None and self.name is None:
            raise ValueError("a 'version' is one of a stored prompt: give its 'name'")
        if self.langchain_type == "PromptTemplate" and self.template is None:
            raise ValueError("a PromptTemplate needs 'template'")
        if self.langchain_type == "ChatPromptTemplate" and self.messages is None:
            raise ValueError("a ChatPromptTemplate needs 'messages'")
        if self.name is not None:
            self._refuse_beside_name()
        _ = self._templates
        return self

    def _refuse_beside_name(self) -> None:
        for key in ("without_passages", "langchain_type", "input_variables", "optional_variables"):
            if getattr(self, key) is not None:
                raise ValueError(f"{key!r} is said by the stored prompt {self.name!r}, not by the step")

    @cached_property
    def _templates(self) -> tuple[ChatTemplate, ChatTemplate]:
        """With passages and without; of a prompt that stands in the step."""
        if self.template is not None:
            grounded = self._declared(prompts.parse_text(self.template, self.template_format))
        elif self.messages is not None:
            grounded = self._declared(prompts.parse_messages(self.messages, self.template_format))
        else:
            return _GROUNDED, self._without_passages() or _PLAIN
        return grounded, self._without_passages() or grounded

    def _without_passages(self) -> ChatTemplate | None:
        if self.without_passages is None:
            return None
        template = prompts.parse_messages(self.without_passages, self.template_format)
        return replace(template, optional=frozenset(self.optional_variables or ()) & template.names)

    def _declared(self, template: ChatTemplate) -> ChatTemplate:
        required = prompts.declared("input_variables", self.input_variables or [])
        optional = prompts.declared("optional_variables", self.optional_variables or [])
        return prompts.with_declared(template, required, optional)

    async def run(self, state: WorkflowState) -> AsyncGenerator[Event, None]:
        state.prompt = await self._stored(state)
        which = f"prompt {self.name!r}" if self.name else "workflow's prompt"
        try:
            stored = None if state.prompt is None else prompts.of_version(state.prompt)
            render = partial(self._render, stored, self._values(state))
            state.messages = render(state.history, state.passages)
        except ValueError as error:
            raise PromptInvalid(f"The {which} can't be filled in: {error}.") from error
        state.draft = Draft(
            messages=state.messages, history=state.history, passages=state.passages, render=render, path=state.path
        )
        return
        yield  # makes this an async generator; the step has nothing to show

    async def _stored(self, state: WorkflowState) -> PromptVersion | None:
        """The version that answers here: the pinned one, the split's for this conversation, or the active one."""
        if self.name is None:
            return None
        configuration = state.run.configuration
        version = self.version or configuration.split_version(self.name, state.inputs.session_id or state.run.run_id)
        found = await configuration.prompt(self.name, version)
        if found is None:
            which = f"version {version}" if version else "active version"
            raise PromptInvalid(f"There is no {which} of the prompt {self.name!r} in this workspace.")
        return found

    def _render(
        self,
        stored: ChatTemplate | None,
        values: Mapping[str, Any],
        history: Sequence[BaseMessage],
        passages: Sequence[Mapping[str, Any]],
    ) -> list[BaseMessage]:
        """The messages; once more, with less of both, if they turn out too long for a model. Raises ValueError."""
        template = stored or self._templates[0 if passages else 1]
        text = "\n".join(self._passage(hit) for hit in passages)
        return template.render({**values, "passages": text, "context": text, "history": list(history)})

    def _values(self, state: WorkflowState) -> Mapping[str, Any]:
        """All but the history and the passages."""
        return {**state.variables, "question": state.question, "input": state.question}

    def _passage(self, hit: Mapping[str, Any]) -> str:
        """One line, so that no passage can pretend to be another one or the question after it."""
        text = " ".join(str(hit["text"]).split())
        return f"{text[: self.passage_chars]} [{hit['n']}]"
