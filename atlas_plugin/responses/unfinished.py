"""Responses in the background before their end, and the end of those whose server was stopped."""

import logging
from collections.abc import Mapping
from typing import Any

from atlas_plugin import json_text
from atlas_plugin.errors import NotFoundError, ServerError
from atlas_plugin.storage import open_responses
from atlas_plugin.storage.database import Database
from atlas_plugin.storage.open_responses import OpenResponse
from atlas_plugin.storage.responses import UNKNOWN_EVENT, ResponseStore
from atlas_plugin.storage.running_servers import RunningServers

log = logging.getLogger("atlas")

UNFINISHED = ("queued", "in_progress")
STOPPED = {"code": "server_error", "message": "the server was stopped before the response was complete"}


def is_unfinished(response: Mapping[str, Any]) -> bool:
    """Whether somebody makes it still."""
    return response.get("status") in UNFINISHED


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
