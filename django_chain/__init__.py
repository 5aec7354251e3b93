"""Django Chain: the real-time LLM chat backend for Django."""

__version__ = "0.1.0"
