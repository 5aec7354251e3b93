"""The REST face of the LLM platform; django_chain.api puts the routers together."""
