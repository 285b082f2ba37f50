"""What plugins are told, and asked, about the memory."""

from dataclasses import dataclass


@dataclass(frozen=True)
class IdleSession:
    """A session that is not pinned. Times are in seconds since 1970."""

    session_id: str
    tenant: str
    """Whose it is, as `tenant` of a request; empty where all see the same."""
    tokens: int
    created_at: float
    last_used: float
    idle_s: float
    """Seconds since its last use."""
