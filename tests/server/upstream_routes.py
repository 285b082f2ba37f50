"""The routes of llama-server itself, as its source registers them: who goes through them misses none."""

import re

from tests.server.harness import BINARY

SOURCE = BINARY.parents[1] / "llama.cpp-source/tools/server/server.cpp"


def upstream_routes() -> list[tuple[str, str]]:
    """Method and path of each route; where a path names a slot, it is the first."""
    found = re.findall(r'ctx_http\.(get|post|del) *\("([^"]+)"', SOURCE.read_text(encoding="utf-8"))
    methods = {"get": "GET", "post": "POST", "del": "DELETE"}
    routes = {(methods[name], path.replace(":id_slot", "0")): None for name, path in found}
    assert len(routes) > 40
    return list(routes)
