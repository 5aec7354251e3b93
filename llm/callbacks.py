"""LangChain callback handlers that watch every model call: LLM["CALLBACKS"] names them, `register_callback_handler`
makes them.

A handler never harms an answer: LangChain logs what it raises. It costs time for each token, whatever it does with
it (docs/extending.md has the figures), so without any the call gets no callbacks at all.
"""

from typing import TYPE_CHECKING

from kernel.conf import config
from llm.registry import callback_handlers
from llm.state import RunContext

if TYPE_CHECKING:
    from langchain_core.callbacks import BaseCallbackHandler


def for_run(run: RunContext | None) -> "list[BaseCallbackHandler]":
    """New handlers for a call of this run; `config` of their factories says which: run_id, workspace_id as text.

    Raises Misconfigured for a name that nobody registered.
    """
    names = config().llm.callbacks
    if not names or run is None:
        return []
    told = {"run_id": str(run.run_id), "workspace_id": str(run.configuration.workspace_id)}
    return [callback_handlers.get(name)(dict(told)) for name in names]
