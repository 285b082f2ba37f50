"""What plugins are asked and told about the memory, through the real binary."""

import random
from pathlib import Path
from typing import Any

from atlas_plugin import facts
from tests.server.conftest import StartServer
from tests.server.conversations import NO_PRELOADING
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


NEWS = """
import threading

from atlas_plugin import hookimpl

saved, restored = [], []
guard = threading.Lock()


@hookimpl
def on_saved(saved: object):
    with guard:
        globals()["saved"].append(saved)


@hookimpl
def on_restored(restored: object):
    with guard:
        globals()["restored"].append(restored)


@hookimpl
def register_routes(routes):
    @routes.get("/v1/atlas/x/news")
    def news(request):
        with guard:
            return {"saved": [vars(one) for one in saved], "restored": [vars(one) for one in restored]}
"""


def news_of(server: Server) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = server.get("/v1/atlas/x/news").json()
    return found


def test_plugins_are_told_what_the_memory_did(start_server: StartServer, tmp_path: Path) -> None:
    plugin = write_plugin(tmp_path, NEWS, "news")
    memory = ["--atlas-memory-path", tmp_path / "memory", "--atlas-block-tokens", "16"]
    server = start_server([*memory, *NO_PRELOADING, "--atlas-plugin", plugin])
    # What becomes durable before the plugin was first asked for is not told.
    server.wait_until(lambda: complete_something(server) and news_of(server)["saved"])
    prompt = "Once upon a time there was a small server. " * 10
    complete(server, prompt, "ada")
    assert server.post("/v1/atlas/memory/flush", {}).status_code == 200
    server.wait_until(lambda: of_session(server, "ada"))
    files = {path.stat().st_size for path in (tmp_path / "memory" / "blocks").glob("*/*/*.kv")}
    server.wait_until(lambda: of_session(server, "ada") >= 100)
    for one in news_of(server)["saved"]:
        assert one["bytes"] > 0
        assert 0 < one["tokens"] <= 16 or one["kind"] == facts.KIND_CHECKPOINT
        assert one["seconds"] > 0
        assert one["tenant"] == ""
    assert {one["bytes"] for one in news_of(server)["saved"] if one["kind"] == facts.KIND_BLOCK} <= files
    assert news_of(server)["restored"] == []
    server.kill()
    server.start()
    status = "/v1/atlas/status"
    server.wait_until(lambda: server.get(status).json()["data"]["memory"]["disk"]["index_complete"])
    reused = complete(server, prompt + "And then?", "ada")
    assert reused >= 100
    server.wait_until(lambda: news_of(server)["restored"])
    [one] = news_of(server)["restored"]
    assert (one["layer"], one["tokens"], one["session_id"], one["route"]) == (2, reused, "ada", "completion")
    assert one["prompt_tokens"] > reused
    assert one["seconds"] > 0
    assert server.get(status).json()["data"]["memory_policy"]["untold"] == 0


def complete_something(server: Server) -> bool:
    """Computes what nobody asked before."""
    complete(server, f"{random.random()} " * 20, "other")
    return True


def of_session(server: Server, name: str) -> int:
    """How many tokens of the session became durable, as the plugin was told."""
    return sum(one["tokens"] for one in news_of(server)["saved"] if one["session_id"] == name)
