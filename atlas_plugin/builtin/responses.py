"""Responses that are kept: GET and DELETE /v1/responses/{id}, and what requests go on from."""

import logging
from collections.abc import Mapping
from typing import Any

from atlas_plugin.builtin.memory import MemoryPlugin
from atlas_plugin.errors import NotFoundError, ValidationError
from atlas_plugin.hookspecs import StatusReport, hookimpl
from atlas_plugin.host.host import ServerCall
from atlas_plugin.host.services import Services
from atlas_plugin.host.worker import Worker
from atlas_plugin.http import Request, Response
from atlas_plugin.memory.conversations import referenced
from atlas_plugin.memory.limits import Limits
from atlas_plugin.memory.tenants import full_name
from atlas_plugin.metrics.families import Family, Sample
from atlas_plugin.responses import items
from atlas_plugin.routing import Routes
from atlas_plugin.storage.completions import PREFIX as COMPLETION_PREFIX
from atlas_plugin.storage.responses import ResponseStore

log = logging.getLogger("atlas")

_PRUNE_S = 60.0
_MAX_ID = 128


class ResponsesPlugin:
    """Keeps responses in the database of the plugin `memory`, which has to start before."""

    def __init__(self, services: Services, memory: MemoryPlugin) -> None:
        self._calls = services.calls
        self._limits = Limits(services.host)
        self._memory = memory
        self._worker = Worker("atlas-responses", self._prune)
        self._kept = self._pruned = 0

    @hookimpl
    def startup(self) -> None:
        self._calls.answer(ServerCall.RESPONSE_ITEMS, self._answer_items)
        self._calls.answer(ServerCall.KEEP_RESPONSE, self._answer_keep)
        if self._memory.is_running:
            self._worker.start()

    @hookimpl
    def shutdown(self) -> None:
        self._worker.stop()

    @hookimpl
    def reload(self, changed: Mapping[str, Any]) -> None:
        self._limits.reload()
        self._worker.wake()

    @hookimpl
    def report_status(self) -> StatusReport:
        problems = [f"old responses are not deleted: {self._worker.problem}"] if self._worker.problem else []
        return StatusReport({"responses": {"kept": self._kept, "pruned": self._pruned}}, problems)

    @hookimpl
    def report_metrics(self) -> list[Family]:
        return [
            Family(
                "atlas_responses_kept_total",
                "counter",
                "Responses of /v1/responses that were kept.",
                [Sample(value=self._kept)],
            ),
            Family(
                "atlas_responses_pruned_total",
                "counter",
                "Responses and chat completions that were deleted as too old, or as too many.",
                [Sample(value=self._pruned)],
            ),
        ]

    @hookimpl
    def register_routes(self, routes: Routes) -> None:
        errors = (NotFoundError,)
        path = "/v1/responses/{response_id}"
        routes.get(path, summary="A response that was kept", answer=dict[str, Any], errors=errors)(self._get)
        routes.delete(path, summary="Delete a response", answer=dict[str, Any], errors=errors)(self._delete)
        routes.get(
            f"{path}/input_items",
            summary="What a response was asked, and what those before it were asked and answered",
            answer=dict[str, Any],
            errors=(NotFoundError, ValidationError),
        )(self._input_items)

    def _store(self) -> ResponseStore:
        return ResponseStore(self._memory.database())

    def _answer_items(self, argument: Mapping[str, Any]) -> dict[str, Any]:
        try:
            chain = self._store().chain(argument["tenant"], _checked(argument["response_id"]))
        except NotFoundError as error:
            raise ValidationError(error.message, "previous_response_id") from None
        if name := items.conversation_of(chain[0]):
            raise ValidationError(
                f"'{argument['response_id']}' is of conversation '{name}': go on from it by \"conversation\"",
                "previous_response_id",
            )
        known = items.conversation(chain)
        exact = [kept.exact for kept in chain if kept.exact]
        return {
            "items": known,
            "referenced": referenced(known, argument["references"]),
            "answers": exact,
            "first": self._store().first_of(argument["tenant"], name),
        }

    def _answer_keep(self, argument: Mapping[str, Any]) -> dict[str, Any]:
        session_id = argument["session_id"]
        if session_id is None:
            self._keep(argument)
            return {"degraded": None}
        response, conversations = argument["response"], self._memory.conversations
        asked, answered = items.identified(argument["input"]), items.identified(response["output"])
        conversations.sync(session_id)
        with self._memory.database().write("keep a response"):
            if response["store"]:
                self._keep({**argument, "input": asked})
            problem = conversations.record(session_id, asked, answered)
        return {"degraded": problem or conversations.share(session_id)}

    def _keep(self, argument: Mapping[str, Any]) -> None:
        response = argument["response"]
        asked = items.identified(argument["input"])
        previous = response.get("previous_response_id") or ""
        exact = argument.get("exact")
        self._store().put(argument["tenant"], response["id"], previous, asked, response, exact)
        self._kept += 1

    def _get(self, request: Request) -> Response:
        if request.query.get("stream", "false") != "false":
            raise ValidationError("a response cannot be streamed again on this server", "stream")
        kept = self._store().get(request.tenant, _id_of(request))
        return Response(body=kept.response, content_type="application/json; charset=utf-8")

    def _delete(self, request: Request) -> dict[str, Any]:
        name, store = _id_of(request), self._store()
        first = store.first_of(request.tenant, name)
        if not store.delete(request.tenant, name):
            raise NotFoundError(f"there is no response '{name}'")
        if not store.is_gone_on_from(request.tenant, first):  # the KV has that name
            self._memory.forget(full_name(request.tenant, first))
        return {"id": name, "object": "response", "deleted": True}

    def _input_items(self, request: Request) -> dict[str, Any]:
        *earlier, own = self._store().chain(request.tenant, _id_of(request))
        return items.page([*items.conversation(earlier), *own.input], request.query)

    def _prune(self) -> float:
        store = self._store()
        while n := store.prune(self._limits.response_ttl_s, self._limits.max_responses):
            self._pruned += n
        return _PRUNE_S


def _id_of(request: Request) -> str:
    return _checked(request.path_params["response_id"])


def _checked(name: str) -> str:
    if name.startswith(COMPLETION_PREFIX):
        raise NotFoundError(f"'{name[:_MAX_ID]}' is a chat completion, and no response")
    return name[:_MAX_ID]
