"""Providers, prompts, workflows, the model call and the interaction log."""
