"""Chat completions that are kept: GET /v1/chat/completions and below, as OpenAI's API has them."""

import re
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from atlas_plugin import facts
from atlas_plugin.bodies import value_must_be
from atlas_plugin.builtin.memory import MemoryPlugin
from atlas_plugin.errors import NotFoundError, ValidationError
from atlas_plugin.hookspecs import StatusReport, hookimpl
from atlas_plugin.host.host import ServerCall
from atlas_plugin.host.services import Services
from atlas_plugin.http import Request, Response
from atlas_plugin.metrics.families import Family, Sample
from atlas_plugin.responses import items
from atlas_plugin.routing import Routes
from atlas_plugin.storage.completions import About, CompletionStore

_ROOT = "/v1/chat/completions"
_MAX_ID = 128
_OF_METADATA = re.compile(r"metadata\[(.*)\]", re.DOTALL)
_RULE = (
    f"an object of up to {facts.MAX_METADATA} texts of up to {facts.MAX_METADATA_VALUE} characters, "
    f"by names of up to {facts.MAX_METADATA_KEY}"
)
_Name = Annotated[str, msgspec.Meta(max_length=facts.MAX_METADATA_KEY)]
_Value = Annotated[str, msgspec.Meta(max_length=facts.MAX_METADATA_VALUE)]


_Metadata = Annotated[dict[_Name, _Value], msgspec.Meta(max_length=facts.MAX_METADATA)]


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What can be changed of a chat completion: its metadata, which take the place of those that it had."""

    metadata: Annotated[_Metadata | None, value_must_be(_RULE)]
    model: Annotated[str, msgspec.Meta(description="for a router, which asks the server of that model")] = ""


class StoredCompletionsPlugin:
    """Keeps chat completions where the plugin `memory` has its database; `responses` deletes old ones."""

    def __init__(self, services: Services, memory: MemoryPlugin) -> None:
        self._calls = services.calls
        self._memory = memory
        self._kept = 0

    @hookimpl
    def startup(self) -> None:
        self._calls.answer(ServerCall.KEEP_COMPLETION, self._answer_keep)

    @hookimpl
    def report_status(self) -> StatusReport:
        return StatusReport({"stored_completions": {"kept": self._kept}})

    @hookimpl
    def report_metrics(self) -> list[Family]:
        return [
            Family(
                "atlas_chat_completions_kept_total",
                "counter",
                "Completions of /v1/chat/completions that were kept.",
                [Sample(value=self._kept)],
            )
        ]

    @hookimpl
    def register_routes(self, routes: Routes) -> None:
        one, answer = _ROOT + "/{completion_id}", dict[str, Any]
        missing, wrong = (NotFoundError,), (NotFoundError, ValidationError)
        routes.get(_ROOT, summary="The chat completions that were kept", answer=answer, errors=wrong[1:])(
            self._list
        )
        routes.get(one, summary="A chat completion that was kept", answer=answer, errors=missing)(self._get)
        routes.post(one, body=Change, summary="Change its metadata", answer=answer, errors=missing)(
            self._change
        )
        routes.delete(one, summary="Delete a chat completion", answer=answer, errors=missing)(self._delete)
        routes.get(
            f"{one}/messages", summary="What a chat completion was asked", answer=answer, errors=wrong
        )(self._messages)

    def _store(self) -> CompletionStore:
        return CompletionStore(self._memory.database())

    def _answer_keep(self, argument: Mapping[str, Any]) -> dict[str, Any]:
        self._store().put(argument["tenant"], argument["completion"], argument["messages"])
        self._kept += 1
        return {}

    def _list(self, request: Request) -> dict[str, Any]:
        query = request.query
        after = query.get("after", "")[:_MAX_ID]
        limit, is_descending = items.limit_of(query), items.is_descending(query, "asc")
        model, metadata = query.get("model"), _metadata_of(query)

        def is_wanted(one: About) -> bool:
            has_metadata = metadata.items() <= one.metadata.items()
            return has_metadata and model in (None, one.model)

        has_filter = bool(metadata) or model is not None
        try:
            page = self._store().page(
                request.tenant,
                limit,
                after=after,
                is_descending=is_descending,
                is_wanted=is_wanted if has_filter else None,
            )
        except NotFoundError as error:
            raise ValidationError(error.message, "after") from None
        names = list(page.completions)
        return {
            "object": "list",
            "data": [msgspec.Raw(one) for one in page.completions.values()],
            "first_id": names[0] if names else None,
            "last_id": names[-1] if names else None,
            "has_more": page.has_more,
        }

    def _get(self, request: Request) -> Response:
        return _json(self._store().get(request.tenant, _id_of(request)))

    def _change(self, request: Request, change: Change) -> Response:
        return _json(self._store().set_metadata(request.tenant, _id_of(request), change.metadata or {}))

    def _delete(self, request: Request) -> dict[str, Any]:
        name = _id_of(request)
        if not self._store().delete(request.tenant, name):
            raise NotFoundError(f"there is no chat completion '{name}'")
        return {"object": "chat.completion.deleted", "id": name, "deleted": True}

    def _messages(self, request: Request) -> dict[str, Any]:
        name = _id_of(request)
        messages = self._store().messages(request.tenant, name)
        shown = [_shown(f"{name}-{i}", one) for i, one in enumerate(messages) if isinstance(one, dict)]
        return items.page(shown, {"order": "asc", **request.query})


def _shown(name: str, message: Mapping[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    is_text = content is None or isinstance(content, str)
    return {
        "name": None,
        "refusal": None,
        **message,
        "id": name,
        "content": content if is_text else None,
        "content_parts": None if is_text else content,
    }


def _metadata_of(query: Mapping[str, str]) -> dict[str, str]:
    matches = ((_OF_METADATA.fullmatch(name), value) for name, value in query.items())
    return {match[1]: value for match, value in matches if match}


def _json(text: bytes) -> Response:
    return Response(body=text, content_type="application/json; charset=utf-8")


def _id_of(request: Request) -> str:
    return request.path_params["completion_id"][:_MAX_ID]
