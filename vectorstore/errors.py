"""The ways indexing and search fail.

ChainError
├── EmbeddingMismatch   (Misconfigured) a collection's vectors come from another model than the settings name
└── Unreadable          (Invalid) a file that can't be indexed; the message names it and says why
    └── NotText         it is no text at all: a picture, an archive, a program
"""

from kernel.errors import Invalid, Misconfigured


class EmbeddingMismatch(Misconfigured):
    code = "embedding_mismatch"
    default_message = "The collection's vectors come from another embedding model."


class Unreadable(Invalid):
    code = "unreadable"
    default_message = "The file can't be indexed."


class NotText(Unreadable):
    code = "not_text"
    default_message = "The file is not text."
