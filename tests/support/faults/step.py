"""A workflow step before the model call, where a message can have its process die."""

import asyncio
import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Literal

from llm.events import Event
from llm.events import Step as StepEvent
from llm.state import WorkflowState
from llm.steps.base import Step
from tests.support.faults.apps import die_once, wanted


class FaultStep(Step):
    type: Literal["fault"] = "fault"

    async def run(self, state: WorkflowState) -> AsyncGenerator[Event, None]:
        if not wanted("before-model", state.question):
            return
        yield StepEvent("fault", "started", {})
        while not Path(os.environ["FAULTS_FILE"] + ".go").exists():
            await asyncio.sleep(0.01)
        die_once("before-model", state.question)
