"""What plugins are asked and told about the memory, through the real binary."""

from pathlib import Path
from typing import Any

from tests.server.conftest import StartServer
from tests.server.harness import Server, write_plugin

TTL = """
from atlas_plugin import hookimpl


@hookimpl
def session_ttl(session):
    return {"short": 0.5, "long": 3600}.get(session.session_id)
"""


def complete(server: Server, prompt: str, session: str, **atlas: Any) -> int:
    """Computes a prompt; the tokens that were reused."""
    body = {"prompt": prompt, "n_predict": 1, "temperature": 0, "atlas": {"session_id": session, **atlas}}
    response = server.post("/completion", body)
    assert response.status_code == 200, response.text
    reused: int = response.json()["atlas"]["reused_tokens"]
    return reused


def sessions_of(server: Server) -> set[str]:
    entries = server.post("/v1/atlas/memory/list", {}).json()["data"]["contexts"]
    return {entry["context_id"] for entry in entries if entry["session"]}


def test_a_plugin_says_how_long_sessions_live(start_server: StartServer, tmp_path: Path) -> None:
    plugin = write_plugin(tmp_path, TTL, "ttl")
    server = start_server(
        ["--atlas-memory-path", tmp_path / "memory", "--atlas-plugin", plugin, "--atlas-session-ttl", "1"]
    )
    for name in ("short", "long", "usual"):
        complete(server, f"This is {name}.", name)
    server.wait_until(lambda: sessions_of(server) == {"long"})
    # And over a restart, which would have ended it as the setting says.
    server.kill()
    server.start()
    complete(server, "This is short.", "short")
    server.wait_until(lambda: sessions_of(server) == {"long", "short"})
    server.wait_until(lambda: sessions_of(server) == {"long"})
