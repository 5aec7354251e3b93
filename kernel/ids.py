"""Row ids: UUID version 7, so that they sort by time of creation and index well."""

from datetime import datetime
from uuid import UUID

from uuid_utils.compat import uuid7 as _uuid7

__all__ = ["UUID", "first_id", "new_id"]

#: What a UUIDv7 holds behind its milliseconds since 1970.
_BITS_BEHIND_TIME = 80


def new_id() -> UUID:
    """A fresh UUIDv7 (RFC 9562)."""
    return _uuid7()


def first_id(moment: datetime) -> UUID:
    """Smaller than every id made from `moment` on, and larger than those made before: the primary key finds by age.

    Before 1970 nothing was made.
    """
    return UUID(int=max(0, int(moment.timestamp() * 1000)) << _BITS_BEHIND_TIME)
