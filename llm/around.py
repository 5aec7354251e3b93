"""What happens around every run: validators of the question, middleware, validators of the answer."""

from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, TypeAlias

from llm.events import Event
from llm.state import RunContext, WorkflowInput

Inner: TypeAlias = Callable[[WorkflowInput], AsyncGenerator[Event, None]]


def around(
    inputs: WorkflowInput, run: RunContext, options: Mapping[str, Any], inner: Inner
) -> AsyncGenerator[Event, None]:
    """The events of `inner(inputs)` as the registered parts let them through.

    `options` are those of the workflow: `input_validators` and `output_validators` beside the setting's.
    """
    return inner(inputs)
