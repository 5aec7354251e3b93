"""The workflow steps of this layer; others are registered by the layers above."""
