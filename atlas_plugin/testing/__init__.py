"""For tests of plugins. Without a server:

with Application(FakeHost(plugins=["my_plugin.py"])) as application:
    asked = application.ask("on_request", CompletionRequest("/v1/chat/completions", "r1"), {"messages": []})
    response = application.handle(Request("GET", "/v1/atlas/x/mine"))

With one, which pytest's fixture `atlas_server` starts:

def test_mine(atlas_server: StartServer) -> None:
    server = atlas_server(plugins=["my_plugin.py"])
    assert server.get("/v1/atlas/x/mine").json() == {}
"""

from atlas_plugin.testing.application import Application, Asked
from atlas_plugin.testing.fake_host import FakeHost
from atlas_plugin.testing.server import Answer, LiveServer, ServerExitedError, StartServer
from atlas_plugin.testing.tiers import AskedTier, TierFailedError

__all__ = [
    "Answer",
    "Application",
    "Asked",
    "AskedTier",
    "FakeHost",
    "LiveServer",
    "ServerExitedError",
    "StartServer",
    "TierFailedError",
]
