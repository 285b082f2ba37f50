"""What plugins are told, and asked, about the memory."""

from dataclasses import dataclass

from atlas_plugin.eviction.records import Kind


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


@dataclass(frozen=True)
class Saved:
    """An entry of the memory whose file is durable: it survives `kill -9`."""

    key: int
    """As `key` of a Touch; the first 8 bytes of the entry's name, least significant first."""
    parent: int
    """The key of the block before it; 0 at a root."""
    kind: Kind
    """BLOCK, TAIL or CHECKPOINT."""
    tokens: int
    """That it adds to its parent's."""
    bytes: int
    """Of its file."""
    seconds: float
    """That writing it took, with pauses for requests."""
    session_id: str = ""
    """The session that has it; empty where it has none, or which is not known: of several, that used last."""
    tenant: str = ""
    """Whose that session is, as `tenant` of a request."""
    layer: int = 2


@dataclass(frozen=True)
class Restored:
    """A request whose state was brought back; known once the request has ended."""

    layer: int
    """1: from RAM; 2: from disk; 3: from what servers share; 4 to 10: from a plugin's tier."""
    tokens: int
    """Of the prompt, that were not computed."""
    prompt_tokens: int
    seconds: float
    """That putting the state back took."""
    request_id: str
    route: str
    """As `route` of a record of GET /v1/atlas/requests."""
    session_id: str
    """Empty: none."""
    tenant: str
    """Whose request it was; empty where all see the same."""
