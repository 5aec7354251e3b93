"""Conversations and passages of a known length, for windows that are counted in words."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from llm import window
from llm.registry import tokenizers
from llm.state import RunContext, WorkflowInput, WorkflowState
from llm.steps.prompt import PromptStep
from llm.tokens import TokenCounter
from llm.window import Draft


def words(count: int, word: str = "word") -> str:
    return " ".join([word] * count)


@pytest.fixture(autouse=True, scope="module")
def _by_words() -> Any:
    """A counter that tests can reckon with: a token is a word."""
    tokenizers.add("words", lambda config: lambda text: len(text.split()))
    yield
    tokenizers.remove("words")


def window_for(prompt: int, answer: int = 100) -> dict[str, Any]:
    """An alias whose prompts may have so many tokens."""
    # A hundredth is kept back, sixteen at least.
    size = next(size for size in range(prompt + answer, 10**6) if size - answer - max(16, size // 100) == prompt)
    return {"CONTEXT_TOKENS": size, "MAX_OUTPUT_TOKENS": answer, "TOKENIZER": "words"}


def spoken(turns: int, size: int = 10) -> list[BaseMessage]:
    """A conversation of so many turns; each message has `size` words, and says which turn it is of."""
    said: list[BaseMessage] = []
    for turn in range(turns):
        order = {"order": 2 * turn + 1}
        said.append(HumanMessage(f"ask{turn} {words(size - 1)}", response_metadata=order))
        said.append(AIMessage(f"tell{turn} {words(size - 1)}", response_metadata={"order": 2 * turn + 2}))
    return said


def hits(count: int, size: int = 10) -> list[dict[str, Any]]:
    return [
        {
            "n": n,
            "id": str(n),
            "document_id": str(uuid4()),
            "text": f"hit{n} {words(size - 2)}",
            "title": "",
            "score": 1,
        }
        for n in range(1, count + 1)
    ]


def prompted(history: Sequence[BaseMessage], passages: Sequence[dict[str, Any]] = (), question: str = "why?") -> Draft:
    """The draft of the built-in prompt."""

    async def made() -> WorkflowState:
        state = WorkflowState.begin(WorkflowInput(UUID(int=0), None, None, question), RunContext.unlogged(UUID(int=0)))
        state.history, state.passages = list(history), list(passages)
        async for _ in PromptStep(type="prompt").run(state):
            pass
        return state

    running = made()
    try:
        running.send(None)
    except StopIteration as ended:
        return window.draft_of(ended.value)
    raise AssertionError("the prompt step waits for nothing")


def counted(messages: Sequence[BaseMessage]) -> int:
    return TokenCounter("words")(messages)
