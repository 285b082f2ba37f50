"""Responses that are kept: GET and DELETE /v1/responses/{id}, and what requests go on from."""

import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from atlas_plugin import json_text
from atlas_plugin.builtin.background import BackgroundPlugin, check_finished
from atlas_plugin.builtin.memory import MemoryPlugin
from atlas_plugin.errors import NotFoundError, ServerError, ValidationError
from atlas_plugin.hookspecs import StatusReport, hookimpl
from atlas_plugin.host.host import ServerCall
from atlas_plugin.host.services import Services
from atlas_plugin.host.worker import Worker
from atlas_plugin.http import Request, Response, StreamResponse
from atlas_plugin.memory.conversations import referenced
from atlas_plugin.memory.limits import Limits
from atlas_plugin.memory.tenants import full_name
from atlas_plugin.metrics.families import Family, Sample
from atlas_plugin.responses import events, items
from atlas_plugin.responses.unfinished import is_unfinished
from atlas_plugin.routing import Routes
from atlas_plugin.storage.completions import PREFIX as COMPLETION_PREFIX
from atlas_plugin.storage.responses import ResponseStore

log = logging.getLogger("atlas")

_PRUNE_S = 60.0
_MAX_ID = 128


class ResponsesPlugin:
    """Keeps responses in the database of the plugin `memory`, which has to start before."""

    def __init__(self, services: Services, memory: MemoryPlugin, background: BackgroundPlugin) -> None:
        self._calls = services.calls
        self._limits = Limits(services.host)
        self._memory = memory
        self._background = background
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
        if is_unfinished(chain[-1].response):
            raise ValidationError(
                f"the response '{argument['response_id']}' has not ended yet", "previous_response_id"
            )
        known = items.conversation(chain)
        return {
            "items": known,
            "referenced": referenced(known, argument["references"]),
            "answers": [kept.exact for kept in chain if kept.exact],
            "first": chain[0].id,
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
                # no request goes on from it but by its conversation, which has how it was written
                self._keep({**argument, "input": asked, "exact": None})
            problem = conversations.record(session_id, asked, answered, argument.get("exact"))
        return {"degraded": problem or conversations.share(session_id)}

    def _keep(self, argument: Mapping[str, Any]) -> None:
        response = argument["response"]
        asked = self._known_items(argument["tenant"], response) or items.identified(argument["input"])
        previous = response.get("previous_response_id") or ""
        server = self._background.server_of(response)
        self._store().put(
            argument["tenant"],
            response["id"],
            previous,
            asked,
            response,
            exact=argument.get("exact"),
            last_event=argument["last_event"] if argument["last_event"] >= 0 else None,
            server=server,
        )
        self._kept += server is None

    def _known_items(self, tenant: str, response: Mapping[str, Any]) -> list[items.Item]:
        """Those of a response that was kept before its end: they have their ids."""
        if not response.get("background") or is_unfinished(response):
            return []
        with suppress(NotFoundError):
            return self._store().get(tenant, response["id"]).input
        return []

    def _get(self, request: Request) -> Response | StreamResponse:
        kept = self._background.get(request.tenant, _id_of(request))
        if _is_streamed(request):
            after = _starting_after(request)
            check_finished(kept)
            if kept.last_event is None:
                raise ValidationError(
                    'only a response of "background": true and "stream": true can be streamed again',
                    "stream",
                )
            response = json_text.decode(kept.response)
            return StreamResponse(events.replayed(response, kept.last_event, after))
        return Response(body=kept.response, content_type="application/json; charset=utf-8")

    def _delete(self, request: Request) -> dict[str, Any]:
        name, store = _id_of(request), self._store()
        first = store.first_of(request.tenant, name)
        with suppress(NotFoundError, ServerError):  # what is damaged can be deleted
            check_finished(self._background.get(request.tenant, name))
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


def _is_streamed(request: Request) -> bool:
    wanted = request.query.get("stream") or "false"
    if wanted not in ("true", "false"):
        raise ValidationError("value must be true or false", "stream")
    return wanted == "true"


def _starting_after(request: Request) -> int:
    text = request.query.get("starting_after") or "-1"
    try:
        return max(-1, int(text))
    except ValueError:
        raise ValidationError("value must be the sequence_number of an event", "starting_after") from None


def _id_of(request: Request) -> str:
    return _checked(request.path_params["response_id"])


def _checked(name: str) -> str:
    if name.startswith(COMPLETION_PREFIX):
        raise NotFoundError(f"'{name[:_MAX_ID]}' is a chat completion, and no response")
    return name[:_MAX_ID]
