"""Conversations as OpenAI's API has them, over the records of sessions: one is a session with its name."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from atlas_plugin import facts, json_text
from atlas_plugin.errors import AtlasError, NotFoundError, PayloadTooLarge, ValidationError
from atlas_plugin.memory.keeper import SessionKeeper
from atlas_plugin.memory.limits import Limits
from atlas_plugin.memory.record_store import StoreError
from atlas_plugin.memory.recorder import Recorder
from atlas_plugin.memory.shared_names import SharedNames
from atlas_plugin.memory.shared_sessions import SharedSessions
from atlas_plugin.memory.tenants import full_name, split_name
from atlas_plugin.responses import forms, incoming
from atlas_plugin.responses.items import Item
from atlas_plugin.storage.conversation_rows import ConversationRows, Found, Row
from atlas_plugin.storage.conversations import ConversationStore, decoded
from atlas_plugin.storage.database import Database

_ID = re.compile(facts.ID_PATTERN.strip("^$"))


class Conversations:
    """Any thread may call all methods. Sessions are named by their full names.

    All raise what the host and the database raise, and NotFoundError where there is no such conversation.
    """

    def __init__(
        self,
        database: Database,
        limits: Limits,
        keeper: SessionKeeper,
        recorder: Recorder,
        shared: SharedSessions,
        names: SharedNames,
    ) -> None:
        self._database = database
        self._rows = ConversationRows(database)
        self._store = ConversationStore(database)
        self._limits = limits
        self._keeper = keeper
        self._recorder = recorder
        self._shared = shared
        self._names = names

    def create(self, session_id: str, metadata: Mapping[str, str], items: Sequence[Any]) -> dict[str, Any]:
        """Make a conversation, whose name is free; its object. Raises ValidationError and PayloadTooLarge."""
        new = incoming.taken(items, set())
        with self._database.write("keep a conversation"):
            self._rows.put(session_id, json_text.encode(metadata))
            self._append(session_id, new)
        self._tell(session_id)
        return self.describe(session_id)

    def describe(self, session_id: str) -> dict[str, Any]:
        """Its object."""
        found = self._find(session_id)
        return {
            "id": split_name(session_id)[1],
            "object": "conversation",
            "created_at": int(found.created_at),
            "metadata": {} if found.metadata is None else decoded(found.metadata),
        }

    def change(self, session_id: str, metadata: Mapping[str, str]) -> dict[str, Any]:
        """Have these metadata in place of others; its object."""
        self._find(session_id)
        self._rows.put(session_id, json_text.encode(metadata))
        self._tell(session_id)
        return self.describe(session_id)

    def delete(self, session_id: str) -> None:
        """Remove it: record, metadata, and the KV that only it uses."""
        if self._keeper.forget(session_id) is None:
            raise _not_found(session_id)

    def items(self, session_id: str) -> list[Item]:
        """All of it as items, oldest first."""
        self._find(session_id)
        return self._items_here(session_id)

    def item(self, session_id: str, item_id: str) -> Item:
        """One of them. Raises NotFoundError."""
        found = next((item for item in self.items(session_id) if item["id"] == item_id), None)
        if found is None:
            raise _no_item(session_id, item_id)
        return found

    def add(self, session_id: str, items: Sequence[Any]) -> list[Item]:
        """Put items behind it, and give them as they are kept. Raises ValidationError and PayloadTooLarge."""
        self._find(session_id)
        with self._database.write("record a conversation"):
            new = incoming.taken(items, {item["id"] for item in self._items_here(session_id)})
            self._append(session_id, new)
        self._tell(session_id)
        return new

    def remove(self, session_id: str, item_id: str) -> dict[str, Any]:
        """Remove an item; the conversation's object. Raises NotFoundError."""
        self._find(session_id)
        with self._database.write("delete an item"):
            for row, items in self._items_by_row(session_id):
                rest = [item for item in items if item["id"] != item_id]
                if len(rest) < len(items):
                    # Of a message that calls tools, say, the others stay.
                    left = forms.messages_of(rest)
                    data = json_text.encode(left[0]) if left else None
                    self._rows.replace(session_id, row.position, data)
                    break
            else:
                raise _no_item(session_id, item_id)
        self._shared.begin_anew(session_id)
        self._tell(session_id)
        return self.describe(session_id)

    # What requests on /v1/responses go on from, and come to.

    def answer_history(self, argument: Mapping[str, Any]) -> dict[str, Any]:
        """Answers the server's call HISTORY about a session that has to be there."""
        session_id = argument["session_id"]
        self._find(session_id)
        answer = self._recorder.answer_history(argument)
        references = argument["references"]
        known = self._items_here(session_id) if references else []
        return {**answer, "referenced": referenced(known, references)}

    def sync(self, session_id: str) -> None:
        """Have what its clients sent whole be in the record, before more comes behind it."""
        self._recorder.sync_session(session_id)

    def record(
        self,
        session_id: str,
        asked: Sequence[Item],
        answered: Sequence[Item],
        exact: Mapping[str, Any] | None = None,
    ) -> str | None:
        """Put an exchange behind the record, where there is one still; None, or why it is not there.

        `exact` says how the model wrote the answer. To be called in a transaction; `share` has other servers
        know it.
        """
        if self._rows.find(session_id) is None:
            return f"conversation '{split_name(session_id)[1]}' was deleted before the answer was complete"
        calls = [item for item in answered if item["type"] == "function_call"]
        if not all(incoming.is_json(call.get("arguments")) for call in calls):
            return (
                "the exchange is not in the conversation: the arguments of its tool call are no JSON, as "
                "where max_output_tokens cuts them off"
            )
        known = {item["id"] for item in self._items_here(session_id)}
        new = [item for item in (*asked, *answered) if item["id"] not in known]
        try:
            self._append(session_id, new, exact)
        except PayloadTooLarge as error:
            return error.message
        return None

    def share(self, session_id: str) -> str | None:
        """Have other servers know what is here; None, or why they do not yet."""
        self._names.note_used([session_id])
        return self._shared.share(session_id)

    def _append(self, session_id: str, items: Sequence[Item], exact: Mapping[str, Any] | None = None) -> None:
        if items:
            turn = self._shared.new_turn()
            self._store.append(session_id, items, self._limits.max_state_bytes, turn, exact)

    def _tell(self, session_id: str) -> None:
        """Others: at once, as a client may ask any of them next."""
        self._shared.share(session_id)
        self._names.note_used([session_id], at_once=True)
        self._names.sync()

    def _find(self, session_id: str) -> Found:
        # A disk that cannot be written can still be read.
        with suppress(AtlasError):
            self._keeper.sync_session(session_id)
        self._recorder.refresh(session_id)
        with suppress(StoreError):
            self._names.describe([session_id])
        found = self._rows.find(session_id)
        if found is None:
            raise _not_found(session_id)
        return found

    def _items_here(self, session_id: str) -> list[Item]:
        return [item for _, items in self._items_by_row(session_id) for item in items]

    def _items_by_row(self, session_id: str) -> list[tuple[Row, list[Item]]]:
        rows = self._rows.rows(session_id)
        return [(row, forms.items_of(decoded(row.data), row.position)) for row in rows]


def referenced(known: Sequence[Item], references: Sequence[str]) -> list[Item]:
    """The items of these ids, without them: each that is said again is another.

    Raises ValidationError for one that is not known.
    """
    by_id = {item.get("id"): item for item in known}
    for name in references:
        if name not in by_id:
            raise ValidationError(
                f"there is no item '{name[:128]}' in what the request goes on from", "input"
            )
    return [{key: value for key, value in by_id[name].items() if key != "id"} for name in references]


def session_of(tenant: str, name: str) -> str:
    """The session that is a conversation. Raises NotFoundError for what can name none."""
    if not _ID.fullmatch(name):
        raise _not_found(name)
    return full_name(tenant, name)


def _not_found(session_id: str) -> NotFoundError:
    name = split_name(session_id)[1][:128]
    return NotFoundError(f"there is no conversation '{name}': it was deleted, or never made")


def _no_item(session_id: str, item_id: str) -> NotFoundError:
    return NotFoundError(f"there is no item '{item_id[:128]}' in conversation '{split_name(session_id)[1]}'")
