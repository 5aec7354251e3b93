"""Where Redis has what memory keeps there. The braces keep a conversation's keys on one node of a cluster."""

from uuid import UUID

from kernel import redis


def tail(session_id: UUID, epoch: int) -> str:
    """The hot tail of a conversation, as it was in that epoch."""
    return redis.key("memory", f"{{{session_id}}}", "tail", epoch)


def dropped(session_id: UUID, epoch: int) -> str:
    """The mark of a tail that is not to be written again."""
    return redis.key("memory", f"{{{session_id}}}", "dropped", epoch)
