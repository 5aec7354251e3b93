"""What a Prompt row does: it is checked when it is saved, rendered, and handed to LangChain users.

Apart from llm.models, which start-up imports, as prompts are made of LangChain's messages.
"""

from collections.abc import Mapping
from typing import Any

from langchain_core.messages import BaseMessage

from llm import langchain_prompts, prompts
from llm.errors import PromptInvalid
from llm.models import Prompt
from llm.prompts import BUILT_IN, ChatTemplate

#: What a prompt has without a run around it.
_ALONE: Mapping[str, Any] = {"history": [], "passages": "", "context": ""}


def check(row: Prompt) -> None:
    """Raises PromptInvalid. Without declared variables, those of the template are the row's."""
    row.input_variables, row.optional_variables = row.input_variables or [], row.optional_variables or []
    template = parse(row)
    if not template.required:
        row.input_variables = sorted(template.variables - BUILT_IN)


def parse(row: Prompt) -> ChatTemplate:
    """Raises PromptInvalid that names the key or the variable at fault."""
    try:
        return prompts.parse_stored(
            row.prompt_template,
            input_variables=prompts.declared("input_variables", row.input_variables),
            optional_variables=prompts.declared("optional_variables", row.optional_variables),
        )
    except ValueError as error:
        raise PromptInvalid(f"{error}.") from error


def render(row: Prompt, values: Mapping[str, Any]) -> list[BaseMessage]:
    """Raises PromptInvalid that names the variable at fault."""
    try:
        return parse(row).render({**_ALONE, **values})
    except ValueError as error:
        raise PromptInvalid(f"The prompt {str(row)!r} can't be filled in: {error}.") from error


def to_langchain(row: Prompt) -> Any:
    """A PromptTemplate, a ChatPromptTemplate, or a Runnable for a custom one."""
    template = parse(row)
    match row.prompt_template["langchain_type"]:
        case "PromptTemplate":
            return langchain_prompts.of_text(template)
        case "ChatPromptTemplate":
            return langchain_prompts.of_messages(template)
        case _:
            return langchain_prompts.of_renderer(template)
