"""GET /v1/atlas/dashboard."""

from atlas_plugin.dashboard import Page
from atlas_plugin.hookspecs import hookimpl
from atlas_plugin.http import Request, Response
from atlas_plugin.routing import Routes


class DashboardPlugin:
    """A page that shows in a browser what the other routes answer. It holds no data itself."""

    @hookimpl
    def startup(self) -> None:
        page = Page.assemble()
        headers = {
            "Cache-Control": "no-cache",
            "Content-Security-Policy": page.policy,
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }
        self._answer = Response(body=page.html, content_type="text/html; charset=utf-8", headers=headers)

    @hookimpl
    def register_routes(self, routes: Routes) -> None:
        routes.get("/v1/atlas/dashboard", summary="A page that shows all this", answer="text/html")(
            self._show
        )

    def _show(self, request: Request) -> Response:
        return self._answer
