"""/v1/conversations as OpenAI's API has it: conversations, and the items in them."""

from secrets import token_hex
from typing import Annotated, Any

from atlas_plugin.bodies import value_must_be
from atlas_plugin.builtin.memory import MemoryPlugin
from atlas_plugin.errors import NotFoundError, PayloadTooLarge, UnavailableError, ValidationError
from atlas_plugin.hookspecs import hookimpl
from atlas_plugin.http import Request
from atlas_plugin.memory.api import AnyBody
from atlas_plugin.memory.conversations import session_of
from atlas_plugin.memory.tenants import full_name
from atlas_plugin.responses import items
from atlas_plugin.responses.incoming import MAX_ITEMS
from atlas_plugin.responses.metadata import Metadata
from atlas_plugin.routing import RouteOptions, Routes

_ERRORS = (NotFoundError, PayloadTooLarge, UnavailableError, ValidationError)
_ITEMS = value_must_be(f"a list of at most {MAX_ITEMS} items", max_length=MAX_ITEMS)
_SOME_ITEMS = value_must_be(f"a list of 1 to {MAX_ITEMS} items", min_length=1, max_length=MAX_ITEMS)


class CreateBody(AnyBody, frozen=True, kw_only=True):
    items: Annotated[list[dict[str, Any]], _ITEMS] | None = None
    metadata: Metadata | None = None


class UpdateBody(AnyBody, frozen=True, kw_only=True):
    metadata: Metadata | None


class ItemsBody(AnyBody, frozen=True, kw_only=True):
    items: Annotated[list[dict[str, Any]], _SOME_ITEMS]


class ConversationsPlugin:
    """Over the sessions of the plugin `memory`, which has to start before."""

    def __init__(self, memory: MemoryPlugin) -> None:
        self._memory = memory

    @hookimpl
    def register_routes(self, routes: Routes) -> None:
        root = "/v1/conversations"
        one, its = f"{root}/{{conversation_id}}", f"{root}/{{conversation_id}}/items"
        item = f"{its}/{{item_id}}"
        add, posted = routes.add, self._posted
        add("POST", root, self._create, body=CreateBody, **posted("Make a conversation"))
        add("GET", one, self._get, **_about("A conversation"))
        add("POST", one, self._update, body=UpdateBody, **posted("Have other metadata for a conversation"))
        add("DELETE", one, self._delete, **_about("Delete a conversation, with its items and its KV"))
        add("POST", its, self._add, body=ItemsBody, **posted("Put items behind those that are there"))
        add("GET", its, self._list, **_about("The items of a conversation"))
        add("GET", item, self._item, **_about("An item of a conversation"))
        add("DELETE", item, self._remove, **_about("Delete an item of a conversation"))

    def _posted(self, summary: str) -> RouteOptions:
        return {**_about(summary), "guard": self._memory.check_size}

    def _create(self, request: Request, body: CreateBody) -> dict[str, Any]:
        session_id = full_name(request.tenant, f"conv_{token_hex(24)}")
        return self._memory.conversations.create(session_id, body.metadata or {}, body.items or [])

    def _get(self, request: Request) -> dict[str, Any]:
        return self._memory.conversations.describe(_session_of(request))

    def _update(self, request: Request, body: UpdateBody) -> dict[str, Any]:
        return self._memory.conversations.change(_session_of(request), body.metadata or {})

    def _delete(self, request: Request) -> dict[str, Any]:
        self._memory.conversations.delete(_session_of(request))
        name = request.path_params["conversation_id"]
        return {"id": name, "object": "conversation.deleted", "deleted": True}

    def _add(self, request: Request, body: ItemsBody) -> dict[str, Any]:
        return items.whole_list(self._memory.conversations.add(_session_of(request), body.items))

    def _list(self, request: Request) -> dict[str, Any]:
        return items.page(self._memory.conversations.items(_session_of(request)), request.query)

    def _item(self, request: Request) -> dict[str, Any]:
        return self._memory.conversations.item(_session_of(request), request.path_params["item_id"])

    def _remove(self, request: Request) -> dict[str, Any]:
        return self._memory.conversations.remove(_session_of(request), request.path_params["item_id"])


def _session_of(request: Request) -> str:
    return session_of(request.tenant, request.path_params["conversation_id"])


def _about(summary: str) -> RouteOptions:
    return {"summary": summary, "answer": dict[str, Any], "errors": _ERRORS}
