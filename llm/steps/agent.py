"""The `agent` step: a model that may call tools until it has an answer."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Literal, Self

from pydantic import Field, model_validator
from typing_extensions import override

from kernel.errors import Misconfigured
from llm import tools, window
from llm.events import Event, Sources, Text
from llm.state import Asked, WorkflowState
from llm.steps.model import ModelStep


class AgentStep(ModelStep):
    """Only the tools that it lists are offered, and nothing else that the model may ask for is done."""

    type: Literal["agent"] = "agent"
    tools: list[str] = Field(min_length=1, max_length=20)
    #: Stands before the messages.
    system: str | None = Field(default=None, max_length=100_000)
    #: Calls of the model.
    max_rounds: int = Field(default=8, ge=1, le=20)
    #: Seconds for one call of a tool.
    tool_timeout: float = Field(default=30.0, gt=0, le=600)

    @model_validator(mode="after")
    def _known(self) -> Self:
        for index, name in enumerate(self.tools):
            try:
                tools.build(name)
            except Misconfigured as error:
                raise ValueError(f".tools[{index}]: {error.message}") from error
            except (TypeError, LookupError) as error:
                raise ValueError(f".tools[{index}]: the tool {name[:60]!r} can't be made without options") from error
        return self

    @override
    async def run(self, state: WorkflowState) -> AsyncGenerator[Event, None]:
        # LangGraph takes 70 MB and over a second: only those who use agents pay for it.
        from llm import agents  # noqa: PLC0415

        draft = window.draft_of(state)
        shows, run = self.shown_in(state), state.run
        state.asked = Asked(self.model, draft, self.options())
        state.text, state.output = "", None
        pieces: list[str] = []
        try:
            async with aclosing(agents.run(self, state, draft)) as events:
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
