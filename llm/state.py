"""What the steps of one run share. No LangChain here: chat makes the input, and imports none at start-up."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

from kernel.conf import config
from kernel.errors import TooLarge
from kernel.ids import new_id
from llm.configuration import Configuration, PromptVersion, WorkflowVersion
from llm.journal import Journal, Unwritten

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

    from llm.answer_cache import Fresh
    from llm.window import Draft


@dataclass(frozen=True, slots=True)
class WorkflowInput:
    """What a run is about. `before_order`: only the session's messages before this one are its history.

    `leaf` and `epoch`: the message that the question follows, and the state of the session's past that is remembered;
    without `epoch` the session's active branch is its history. `as_of`: when that was its state, by time.monotonic.
    """

    workspace_id: UUID
    user_id: int | None
    session_id: UUID | None
    question: str
    before_order: int = 0
    #: Values for prompts and conditions, beside the question. Plain JSON.
    variables: dict[str, Any] = field(default_factory=dict)
    leaf: UUID | None = None
    epoch: int | None = None
    as_of: float | None = None


@dataclass(slots=True)
class RunContext:
    """One run: shared by all its steps, also by those that run side by side and by sub-workflows."""

    configuration: Configuration
    journal: Journal
    run_id: UUID = field(default_factory=new_id)
    #: The stored workflow that runs; None: one that stands nowhere.
    workflow: WorkflowVersion | None = None
    #: The workflow's `cache` option: `{"kind", "ttl", …}`; None: every call is made.
    cache: dict[str, Any] | None = None
    #: Answers that `cache` keeps when the run has ended well.
    fresh: "list[Fresh]" = field(default_factory=list)
    #: The first call's number: an earlier attempt at the same run may have used some.
    first_call: int = 0
    calls: int = 0
    #: One entry a finished step, for the log: `{"path", "type", "state", "ms"}`.
    trace: list[dict[str, Any]] = field(default_factory=list)
    #: Some text of this run has been shown.
    shown: bool = False

    @classmethod
    def unlogged(cls, workspace_id: UUID) -> Self:
        """A run that leaves no rows and knows the setting alone: for tests and for trying a workflow out."""
        return cls(Configuration(workspace_id=workspace_id, generation=0), Unwritten())

    def next_call(self) -> int:
        """The number of the next model call. Raises TooLarge beyond LLM.MAX_CALLS_PER_RUN."""
        if self.calls >= config().llm.max_calls_per_run:
            raise TooLarge(f"A run may call models {config().llm.max_calls_per_run} times.", code="too_many_calls")
        self.calls += 1
        return self.first_call + self.calls - 1


@dataclass(frozen=True, slots=True)
class Asked:
    """A call as a step made it: the alias, the prompt, the call's own options."""

    model: str
    draft: "Draft"
    options: dict[str, Any]


@dataclass(slots=True)
class WorkflowState:
    """What the steps have found out so far; each step reads and writes its part."""

    inputs: WorkflowInput
    question: str
    run: RunContext
    history: "list[BaseMessage]" = field(default_factory=list)
    #: The hits of llm.events.Sources, in the order of their marks.
    passages: list[dict[str, Any]] = field(default_factory=list)
    #: What the next model call gets; empty: history and question.
    messages: "list[BaseMessage]" = field(default_factory=list)
    #: How `messages` are written with less of history and passages, if a `prompt` step has made them.
    draft: "Draft | None" = None
    #: The stored prompt that made `messages`, for the log.
    prompt: PromptVersion | None = None
    #: The answer of the last model call.
    text: str = ""
    #: What the last parser made of it.
    output: Any = None
    #: Values for prompts, conditions and transforms, by name; a step's `output` option names where it writes.
    variables: dict[str, Any] = field(default_factory=dict)
    #: The step that runs, as in "steps[2]", and whether people see its text while it comes.
    path: str = "steps"
    shows: bool = True
    #: The last call of a model; a parser may have it repeated.
    asked: Asked | None = None
    #: The workflows around this one, the outermost first.
    within: tuple[str, ...] = ()

    @classmethod
    def begin(cls, inputs: WorkflowInput, run: RunContext) -> Self:
        return cls(inputs, inputs.question, run, variables=dict(inputs.variables))

    def fork(self) -> Self:
        """A copy for steps that run beside others: what they write is theirs; the run itself is shared."""
        return replace(
            self,
            history=list(self.history),
            passages=list(self.passages),
            messages=list(self.messages),
            variables=dict(self.variables),
        )
