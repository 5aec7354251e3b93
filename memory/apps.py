"""Memory's Django app. It names its parts as strings: LangChain is imported when one of them is first used."""

from django.apps import AppConfig
from django.db.models.signals import post_delete

from llm.registry import memories, memory_stores, workflow_steps


class MemoryConfig(AppConfig):
    name = "memory"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        memories.add("buffer", "memory.kinds:create_buffer")
        memories.add("buffer_window", "memory.kinds:create_buffer_window")
        memories.add("token_window", "memory.kinds:create_token_window")
        memories.add("summary", "memory.kinds:create_summary")
        memories.add("summary_buffer", "memory.kinds:create_summary_buffer")
        memories.add("recall", "memory.kinds:create_recall")
        memory_stores.add("inmemory", "memory.stores.inmemory:create")
        memory_stores.add("postgres", "memory.stores.postgres:create")
        memory_stores.add("redis", "memory.stores.redis:create")
        workflow_steps.add("memory", "memory.steps:MemoryStep")
        # It has models, which exist from now on.
        from memory import derived, exchange, gone  # noqa: PLC0415

        exchange.on_change.append(derived.on_change)
        post_delete.connect(gone.on_delete, sender="chat.ChatSession", dispatch_uid="memory.gone")
