"""The limits on what is stored, which may change while the server runs."""

from atlas_plugin.host.host import Host


class Limits:
    """Read from the settings at the start, and again by `reload`; any thread may read the fields."""

    session_ttl_s: float
    """Seconds after which a session that nobody used ends; 0: never."""
    max_sessions: int
    """How many are kept; 0: any number."""
    response_ttl_s: float
    """Seconds that a response is kept, or a conversation after its last use; 0: for ever."""
    max_responses: int
    """How many are kept, and how many conversations; 0: any number."""
    max_state_bytes: int
    """Of one saved state, and of one session's record."""
    state_switches: str
    """How a user sets `max_state_bytes`."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.reload()

    def reload(self) -> None:
        """Read them anew."""
        settings = self._host.settings()
        self.session_ttl_s = settings.number("session_ttl_s")
        self.max_sessions = settings.integer("max_sessions")
        self.response_ttl_s = settings.number("response_ttl_s")
        self.max_responses = settings.integer("max_responses")
        self.max_state_bytes = settings.integer("max_state_bytes")
        self.state_switches = settings.switches("max_state_bytes")

    def ttl_of(self, *, is_conversation: bool) -> float:
        """Seconds after which a session that nobody used ends; 0: never."""
        return self.response_ttl_s if is_conversation else self.session_ttl_s
