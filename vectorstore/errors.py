"""The ways indexing and search fail.

ChainError
├── EmbeddingMismatch       (Misconfigured) a collection's vectors come from another model than the settings name
├── Unreadable              (Invalid) a document that can't be indexed; the message names it and says why
│   ├── NotText             it is no document at all: a picture, an archive, a program
│   ├── UnsupportedType     a document of a kind that is not read, or one whose name belies its contents
│   ├── Encrypted           it opens with a password only
│   ├── NoText              it has nothing to index: empty, or a scan
│   ├── ParseTimeout        reading it takes longer than it may
│   ├── ParseFailed         it is damaged, or made to do harm
│   └── DocumentTooLarge    (TooLarge) it, its text or the memory that it takes goes beyond a bound
├── WorkerDied              each worker that tried a document ended on the way: it may be what they died of
├── UrlRefused              (Invalid) an address that is not fetched, or an answer that is no document
└── FetchFailed             (Unavailable) the address could not be read this time; try again after `retry_after`
"""

from kernel.errors import ChainError, Invalid, Misconfigured, TooLarge, Unavailable


class EmbeddingMismatch(Misconfigured):
    code = "embedding_mismatch"
    default_message = "The collection's vectors come from another embedding model."


class Unreadable(Invalid):
    code = "unreadable"
    default_message = "The file can't be indexed."


class NotText(Unreadable):
    code = "not_text"
    default_message = "The file is not text."


class UnsupportedType(Unreadable):
    code = "unsupported_type"
    default_message = "Files of this kind can't be indexed."


class Encrypted(Unreadable):
    code = "encrypted"
    default_message = "The file is protected by a password; save it without one."


class NoText(Unreadable):
    code = "no_text"
    default_message = "The file has no text to index."


class ParseTimeout(Unreadable):
    code = "parse_timeout"
    default_message = "Reading the file takes too long."


class ParseFailed(Unreadable):
    code = "parse_failed"
    default_message = "The file is damaged."


class DocumentTooLarge(TooLarge, Unreadable):
    default_message = "The document is too large."


class WorkerDied(ChainError):
    code = "worker_died"
    default_message = "The workers that tried this document ended on the way."


class UrlRefused(Invalid):
    code = "url_refused"
    default_message = "This address is not fetched."


class FetchFailed(Unavailable):
    code = "fetch_failed"
    default_message = "The address could not be read; try again later."
