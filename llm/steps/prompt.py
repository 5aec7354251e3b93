"""The `prompt` step: the messages for the next model call.

Variables of every prompt: `question` (also `input`), `passages` (also `context`) and the placeholder `history`.
"""

from collections.abc import AsyncGenerator, Mapping
from functools import cached_property
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from llm import prompts
from llm.errors import WorkflowInvalid
from llm.events import Event
from llm.prompts import ChatTemplate
from llm.state import WorkflowState
from llm.steps.base import Step

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


class PromptStep(Step):
    """Give `template` (a text) or `messages`, or neither: the built-in prompts, with and without passages."""

    type: Literal["prompt"] = "prompt"
    template: str | None = None
    messages: list[dict[str, Any]] | None = None
    #: Used in place of `messages` when no passage was found.
    without_passages: list[dict[str, Any]] | None = None
    langchain_type: Literal["PromptTemplate", "ChatPromptTemplate"] | None = None
    input_variables: list[str] | None = None
    template_format: Literal["f-string"] = "f-string"
    #: What a passage may take of the prompt, in characters.
    passage_chars: int = Field(default=600, ge=50, le=20_000)

    @field_validator("template")
    @classmethod
    def _parses(cls, template: str | None) -> str | None:
        if template is not None:
            prompts.parse_text(template)
        return template

    @field_validator("messages", "without_passages")
    @classmethod
    def _messages_parse(cls, messages: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
        if messages is not None:
            prompts.parse_messages(messages)
        return messages

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.template is not None and self.messages is not None:
            raise ValueError("give 'template' or 'messages', not both")
        if self.langchain_type == "PromptTemplate" and self.template is None:
            raise ValueError("a PromptTemplate needs 'template'")
        if self.langchain_type == "ChatPromptTemplate" and self.messages is None:
            raise ValueError("a ChatPromptTemplate needs 'messages'")
        return self

    @cached_property
    def _templates(self) -> tuple[ChatTemplate, ChatTemplate]:
        """With passages and without."""
        if self.template is not None:
            grounded = prompts.parse_text(self.template)
        elif self.messages is not None:
            grounded = prompts.parse_messages(self.messages)
        else:
            plain = self.without_passages or PLAIN_PROMPT
            return prompts.parse_messages(GROUNDED_PROMPT), prompts.parse_messages(plain)
        return grounded, prompts.parse_messages(self.without_passages) if self.without_passages else grounded

    async def run(self, state: WorkflowState) -> AsyncGenerator[Event, None]:
        template = self._templates[0 if state.passages else 1]
        try:
            state.messages = template.render(self._values(state))
        except ValueError as error:
            raise WorkflowInvalid(f"The workflow's prompt can't be filled in: {error}.") from error
        return
        yield  # makes this an async generator; the step has nothing to show

    def _values(self, state: WorkflowState) -> Mapping[str, Any]:
        passages = "\n".join(self._passage(hit) for hit in state.passages)
        return {
            **state.variables,
            "question": state.question,
            "input": state.question,
            "passages": passages,
            "context": passages,
            "history": state.history,
        }

    def _passage(self, hit: Mapping[str, Any]) -> str:
        """One line, so that no passage can pretend to be another one or the question after it."""
        text = " ".join(str(hit["text"]).split())
        return f"{text[: self.passage_chars]} [{hit['n']}]"
