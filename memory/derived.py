"""What is derived from messages goes with them: the listener on changes of a conversation's past."""

from typing import Any

from django.apps import apps

from memory import jobs, summaries, vectors
from memory.exchange import Change


def on_change(change: Change) -> None:
    """In the transaction of the change. Summaries and vectors of what was deleted go; the rest is found by its branch.

    An edited message still stands on its old branch, and so does what was made of it.
    """
    if change.kind == "delete":
        messages: Any = apps.get_model("chat", "ChatHistory").objects
        orders = list(messages.filter(id__in=change.message_ids).values_list("order", flat=True))
        if orders:
            summaries.forget(change.session_id, orders)
        vectors.forget(change.message_ids)
    jobs.again(change.session_id)
