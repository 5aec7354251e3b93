"""Texts as vectors: providers by name, and the Embedder that calls them from async code."""
