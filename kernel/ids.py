"""Row ids: UUID version 7, so that they sort by time of creation and index well."""

from uuid import UUID

from uuid_utils.compat import uuid7 as _uuid7

__all__ = ["UUID", "new_id"]


def new_id() -> UUID:
    """A fresh UUIDv7 (RFC 9562)."""
    return _uuid7()
