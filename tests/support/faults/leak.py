"""A workflow step that is careless with the question: tells it, logs it, fails with it."""

import logging
from collections.abc import AsyncGenerator
from typing import Literal

from kernel.errors import Misconfigured
from llm.events import Event
from llm.events import Step as StepEvent
from llm.state import WorkflowState
from llm.steps.base import Step

logger = logging.getLogger(__name__)


class LeakStep(Step):
    type: Literal["leak"] = "leak"

    async def run(self, state: WorkflowState) -> AsyncGenerator[Event, None]:
        question = state.question
        yield StepEvent("leak", "started", {"note": question, "said": [{"password": "swordfish"}]})
        logger.warning("action=leak question=%s", question)
        if "[[raise]]" in question:
            raise RuntimeError(question)
        if "[[typed]]" in question:
            raise Misconfigured(question)
