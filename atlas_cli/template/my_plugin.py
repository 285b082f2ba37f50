"""Keeps answers of chats short where the client names no length, and says hello."""

from typing import Any

from atlas_plugin import CompletionRequest, Modify, Request, Routes, hookimpl

ATLAS_API = 1  # the version of the hooks that this is written for

MAX_TOKENS = 16


@hookimpl
def on_request(request: CompletionRequest, body: dict[str, Any]) -> Modify | None:
    """Give chats a length."""
    if request.route != "/v1/chat/completions" or "max_tokens" in body:
        return None
    return Modify({**body, "max_tokens": MAX_TOKENS})


@hookimpl
def register_routes(routes: Routes) -> None:
    """Add GET /v1/atlas/x/my_plugin."""

    @routes.get("/v1/atlas/x/my_plugin", summary="Say hello")
    def hello(request: Request) -> dict[str, str]:
        return {"hello": request.query.get("name", "world")}
