"""LangChain's agent over our models and tools. Imported by the first run of an `agent` step, and by nothing else.

Each of its model calls goes our way (`llm.calls`): routed, logged, budgeted, stopped with the run.
"""

import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from importlib import import_module
from typing import TYPE_CHECKING, Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import BaseTool, StructuredTool
from pydantic import ConfigDict
from typing_extensions import override

from llm import calls, tools, values
from llm.errors import OutputInvalid, ToolFailed
from llm.events import Event, Text, ToolCalls
from llm.events import Step as Progress
from llm.merge import Put, working
from llm.state import WorkflowState
from llm.tools import Tool, ToolContext
from llm.window import Draft

if TYPE_CHECKING:
    from llm.steps.agent import AgentStep

logger = logging.getLogger(__name__)
#: Not by an import statement: the type checker crashes over that package.
create_agent: Any = import_module("langchain.agents").create_agent


async def run(step: "AgentStep", state: WorkflowState, draft: Draft) -> AsyncGenerator[Event, None]:
    """What the agent's models and tools yield, in order. Raises OutputInvalid if it comes to no end."""
    path = state.path

    async def work(put: Put) -> None:
        offered = [_offered(tools.build(name), step, state, path, put) for name in step.tools]
        model = RoutedModel(step=step, state=state, draft=draft, put=put)
        agent = create_agent(model, tools=offered, system_prompt=step.system)
        # Two nodes a round; the model counts the rounds itself and says so in our words.
        await agent.ainvoke({"messages": list(draft.messages)}, {"recursion_limit": 2 * step.max_rounds + 10})

    async with working([work]) as events:
        async for event in events:
            yield event


class RoutedModel(BaseChatModel):
    """A chat model of LangChain's whose every call is one of the step's."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    step: Any
    state: Any
    #: What the agent was given; its rounds stand behind that.
    draft: Any
    put: Any
    tools: list[BaseTool] = []
    #: Rounds so far, and whether text has come; shared by the copies that have tools bound.
    said: dict[str, int] = {}

    def model_post_init(self, context: Any) -> None:
        self.said = self.said or {"rounds": 0, "texts": 0}

    @property
    def _llm_type(self) -> str:
        return "django-chain"

    @override
    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Any:
        return self.model_copy(update={"tools": list(tools)})

    @override
    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        raise NotImplementedError("workflows run asynchronously")

    @override
    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        self.said["rounds"] += 1
        if self.said["rounds"] > self.step.max_rounds:
            raise OutputInvalid(f"The agent came to no answer within {self.step.max_rounds} rounds.")
        pieces: list[str] = []
        asked: list[dict[str, Any]] = []
        events = calls.stream_answer(
            self.state, self.step.model, self._grown(messages), tools=self.tools, options=self.step.options()
        )
        async with aclosing(events):
            async for event in events:
                if event.__class__ is Text:
                    if not pieces and self.said["texts"]:
                        await self.put(Text("\n\n"))  # what was said before the tools stays, as a paragraph
                    self.said["texts"] = 1
                    pieces.append(event.text)
                elif isinstance(event, ToolCalls):
                    asked += self._allowed(event)
                    continue
                await self.put(event)
        message = AIMessage(content="".join(pieces), tool_calls=asked)
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _grown(self, messages: Sequence[BaseMessage]) -> Draft:
        """The agent's prompt with what came of its tools: a call of theirs stays together with its results."""
        begins = 1 if self.step.system else 0
        exchanges: list[list[BaseMessage]] = []
        for message in messages[begins + len(self.draft.messages) :]:
            if message.type == "ai" or not exchanges:
                exchanges.append([])
            exchanges[-1].append(message)
        grown: Draft = self.draft.around(head=messages[:begins], exchanges=exchanges)
        return grown

    def _allowed(self, event: ToolCalls) -> list[dict[str, Any]]:
        """The calls of tools that were offered; a model may make others up."""
        offered = {tool.name for tool in self.tools}
        if ignored := sum(call["name"] not in offered for call in event.calls):
            logger.warning("action=tool_calls_ignored run=%s calls=%d", self.state.run.run_id, ignored)
        return [
            {"id": call["id"], "name": call["name"], "args": call["args"]}
            for call in event.calls
            if call["name"] in offered
        ]


def _offered(tool: Tool, step: "AgentStep", state: WorkflowState, path: str, put: Put) -> BaseTool:
    context = ToolContext.of(state)

    async def call(**arguments: Any) -> str:
        await put(Progress("tool", "started", {"path": path, "tool": tool.name}))
        try:
            made = await tool.call(arguments, context, seconds=step.tool_timeout)
        except ToolFailed as error:
            # The model may go on without it. What it reads is ours: no other exception's text.
            await put(Progress("tool", "failed", {"path": path, "tool": tool.name}))
            return error.message
        await put(Progress("tool", "finished", {"path": path, "tool": tool.name}))
        return values.as_text(made)

    return StructuredTool(
        name=tool.name,
        description=tool.description,
        args_schema=tool.arguments,
        coroutine=call,
        handle_validation_error="The arguments do not fit the tool's schema.",
    )
