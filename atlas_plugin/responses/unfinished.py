"""Responses in the background before their end, and the end of those whose server was stopped."""

import logging
from collections.abc import Mapping
from typing import Any

import msgspec

from atlas_plugin import json_text
from atlas_plugin.errors import NotFoundError, ServerError
from atlas_plugin.storage import open_responses
from atlas_plugin.storage.database import Database
from atlas_plugin.storage.open_responses import OpenResponse
from atlas_plugin.storage.responses import UNKNOWN_EVENT, Kept, ResponseStore
from atlas_plugin.storage.running_servers import RunningServers

log = logging.getLogger("atlas")

UNFINISHED = ("queued", "in_progress")
STOPPED = {"code": "server_error", "message": "the server was stopped before the response was complete"}


class _Status(msgspec.Struct):
    status: str = ""
    background: bool = False


def is_unfinished(response: Mapping[str, Any] | bytes) -> bool:
    """Whether somebody makes it still, as far as its status says."""
    if isinstance(response, bytes):
        return status_of(response).status in UNFINISHED
    return response.get("status") in UNFINISHED


def status_of(response: bytes) -> _Status:
    """What it says of itself, without the rest. Raises ServerError where it is damaged."""
    try:
        return msgspec.json.decode(response, type=_Status)
    except (msgspec.MsgspecError, RecursionError):
        raise ServerError("a response is damaged: delete it") from None


def settled(database: Database, servers: RunningServers, tenant: str, response_id: str) -> Kept:
    """A response that this server does not make: unfinished only where another does, which runs.

    Else it has failed: its server was stopped, or its end could not be kept. Raises AtlasError and OSError.
    """
    store = ResponseStore(database)
    kept = store.get(tenant, response_id)
    if not is_unfinished(kept.response):
        return kept
    server = open_responses.server_of(database, tenant, response_id)
    if servers.is_other(server):
        return kept
    _fail(database, OpenResponse(tenant, response_id, server))
    return store.get(tenant, response_id)


def fail_abandoned(database: Database, servers: RunningServers) -> int:
    """Have those end as failed whose server does not run any more; how many these were.

    Raises AtlasError and OSError.
    """
    abandoned = [one for one in open_responses.find_all(database) if not servers.runs(one.server)]
    for one in abandoned:
        _fail(database, one)
    return len(abandoned)


def _fail(database: Database, one: OpenResponse) -> None:
    store = ResponseStore(database)
    try:
        kept = store.get(one.tenant, one.response_id)
        response = json_text.decode(kept.response)
    except NotFoundError:
        response = {}
    except (ServerError, ValueError) as error:
        log.warning("the response '%s' cannot be ended: %s", one.response_id, error)
        response = {}
    if is_unfinished(response):
        ended = {**response, "status": "failed", "error": STOPPED}
        last_event = None if kept.last_event is None else UNKNOWN_EVENT
        previous = ended.get("previous_response_id") or ""
        store.put(one.tenant, one.response_id, previous, kept.input, ended, last_event=last_event)
        return
    with database.write("forget an unfinished response") as connection:
        open_responses.remove(connection, one.tenant, one.response_id)
