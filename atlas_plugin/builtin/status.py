"""GET /v1/atlas/status."""

import platform
import sys
from dataclasses import dataclass
from typing import Any, Literal

from atlas_plugin import facts
from atlas_plugin.hookspecs import Plugins, hookimpl
from atlas_plugin.host.host import Host
from atlas_plugin.http import Request
from atlas_plugin.routing import Routes

_ASK_THE_ADMIN = "something is wrong; the key of --atlas-admin-key is told what"


@dataclass(frozen=True)
class Status:
    """Health: a sentence for each problem there is now, and facts of the server and its plugins.

    Tenants get facts without paths, and of problems only that there are some.
    A notice says what somebody might miss though nothing is broken; it leaves the status alone.
    """

    status: Literal["healthy", "degraded"]
    data: dict[str, Any]
    problems: list[str]
    notices: list[str]


class StatusPlugin:
    """The server's own facts, and what the plugins report."""

    @hookimpl
    def startup(self, host: Host, plugins: Plugins) -> None:
        self._host = host
        self._plugins = plugins

    @hookimpl
    def register_routes(self, routes: Routes) -> None:
        routes.get(facts.ROUTE_STATUS, summary="Health, and what is wrong", answer=Status)(self._status)

    def _status(self, request: Request) -> dict[str, Any]:
        states = [info.state for info in self._plugins.infos()]
        own: dict[str, Any] = {
            **self._host.status(),
            "python": {"version": platform.python_version(), "prefix": sys.prefix},
            "plugins": {"active": states.count("active"), "failed": states.count("failed")},
        }
        notices = own.pop("notices")
        reports = self._plugins.reports()
        problems = self._plugins.problems(reports)
        reported: dict[str, Any] = {"memory_persistence": False}
        for report in reports:
            reported.update(report.data)
        # The server's own stand first in the answer, and no plugin can replace one.
        data = {**own, **reported, **own}
        if not request.is_admin:
            data, problems, notices = _for_tenants(data), [_ASK_THE_ADMIN] if problems else [], []
        return {
            "status": "degraded" if problems else "healthy",
            "data": data,
            "problems": problems,
            "notices": notices,
        }


def _for_tenants(data: dict[str, Any]) -> dict[str, Any]:
    memory = data.get("memory")
    return {
        **{name: data[name] for name in facts.TENANT_STATUS if name in data},
        "python": {"version": data["python"]["version"]},
        "memory": memory and {name: memory[name] for name in ("problem",) if name in memory},
    }
