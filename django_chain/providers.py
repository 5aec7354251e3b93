"""Plug your own parts in, by name; settings and workflows then use the name.

    from django_chain.providers import register_llm_provider

    @register_llm_provider("custom_provider")
    def create_custom_llm(config):
        return CustomLLM(**config)

Every factory takes one dict of options and returns the part. Register in a module that an `AppConfig.ready()` imports,
or name an LLM provider in `DJANGO_CHAIN["LLM"]["PROVIDERS"]` as "module:factory", which imports it on first use.
"""

from kernel.redaction import register_redaction
from llm import registry

register_llm_provider = registry.llm_providers.register
register_embedding_provider = registry.embedding_providers.register
register_vector_store = registry.vector_stores.register
register_memory = registry.memories.register
register_memory_store = registry.memory_stores.register
register_parser = registry.parsers.register
register_document_parser = registry.document_parsers.register
register_workflow_step = registry.workflow_steps.register
register_validator = registry.validators.register
register_prompt_renderer = registry.prompt_renderers.register
register_transform = registry.transforms.register
register_tool = registry.tools.register
register_middleware = registry.middleware.register
register_callback_handler = registry.callback_handlers.register
register_answer_cache = registry.answer_caches.register
register_reranker = registry.rerankers.register
register_tokenizer = registry.tokenizers.register

__all__ = [
    "register_answer_cache",
    "register_callback_handler",
    "register_document_parser",
    "register_embedding_provider",
    "register_llm_provider",
    "register_memory",
    "register_memory_store",
    "register_middleware",
    "register_parser",
    "register_prompt_renderer",
    "register_redaction",
    "register_reranker",
    "register_tokenizer",
    "register_tool",
    "register_transform",
    "register_validator",
    "register_vector_store",
    "register_workflow_step",
]
