"""What the steps of one run share. No LangChain here: chat makes the input, and imports none at start-up."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage


@dataclass(frozen=True, slots=True)
class WorkflowInput:
    """What a run is about. `before_order`: only the session's messages before this one are its history."""

    workspace_id: UUID
    user_id: int | None
    session_id: UUID | None
    question: str
    before_order: int = 0


@dataclass(slots=True)
class WorkflowState:
    """What the steps have found out so far; each step reads and writes its part."""

    inputs: WorkflowInput
    question: str
    history: "list[BaseMessage]" = field(default_factory=list)
    #: The hits of llm.events.Sources, in the order of their marks.
    passages: list[dict[str, Any]] = field(default_factory=list)
    #: What the next model call gets; empty: history and question.
    messages: "list[BaseMessage]" = field(default_factory=list)
    #: The answer of the last model call.
    text: str = ""
    #: What the last parser made of it.
    output: Any = None
    #: Values for prompts, beside the question, the history and the passages.
    variables: dict[str, Any] = field(default_factory=dict)
