"""The LLM platform's Django app."""

from typing import Any

from django.apps import AppConfig
from django.core.signals import setting_changed
from django.db.models.signals import post_delete, post_save


class LlmConfig(AppConfig):
    name = "llm"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        # They need the app registry.
        from llm import checks, configuration, generation, models  # noqa: F401, PLC0415  checks registers itself

        def changed(instance: Any, origin: Any = None, **_: object) -> None:
            gone = getattr(origin, "model", type(origin)) not in (type(None), type(instance))
            if not gone:  # with its workspace or its author: a row about it would have no place
                generation.bump(instance.workspace_id if hasattr(instance, "workspace_id") else None)

        for model in (
            models.Prompt, models.PromptSplit, models.Workflow, models.ModelConfig, models.ModelPrice, models.Budget,
        ):  # fmt: skip
            for signal in (post_save, post_delete):
                signal.connect(changed, sender=model, weak=False, dispatch_uid=f"llm.{model.__name__}.changed")
        setting_changed.connect(configuration.forget, dispatch_uid="llm.configuration")
