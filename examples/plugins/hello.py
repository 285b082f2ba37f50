"""GET /v1/atlas/x/hello?name=Ada answers {"hello": "Ada"}."""

from atlas_plugin import Request, Routes, hookimpl


@hookimpl
def register_routes(routes: Routes) -> None:
    @routes.get("/v1/atlas/x/hello")
    def hello(request: Request) -> dict[str, str]:
        return {"hello": request.query.get("name", "world")}
