"""Has sessions listed on all servers that share, wherever they were made, and ends those that none uses."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress

import msgspec

from atlas_plugin.memory.record_store import DamagedRecordError, Meta, RecordStore, StoreError
from atlas_plugin.storage import listing
from atlas_plugin.storage.conversation_rows import ConversationRows
from atlas_plugin.storage.database import Database
from atlas_plugin.storage.shared_turns import SharedTurns

AGAIN_S = 30.0
"""How soon others are told again of a session that goes on: lists may be so much behind."""
_AT_ONCE = 64


class SharedNames:
    """Any thread; calls wait for the network, but not for long. Without a store they do nothing.

    `end` removes what is here of a session that another server deleted.
    """

    def __init__(
        self, records: RecordStore, database: Database, turns: SharedTurns, end: Callable[[str], object]
    ) -> None:
        self.is_on = bool(records.state()["is_on"])
        self._records = records
        self._database = database
        self._rows = ConversationRows(database)
        self._turns = turns
        self._end = end
        self._lock = threading.Lock()
        self._used: dict[str, float] = {}
        """Sessions that others are to be told of, and when at the earliest (time.monotonic())."""
        self._told: dict[str, float] = {}

    def note_used(self, session_ids: Iterable[str], *, at_once: bool = False) -> None:
        """These were used, or at_once: pinned."""
        if self.is_on:
            with self._lock:
                for session_id in session_ids:
                    told = self._told.get(session_id, -AGAIN_S)
                    self._used[session_id] = 0.0 if at_once else told + AGAIN_S

    @property
    def n_waiting(self) -> int:
        """Sessions that others are to be told of now."""
        now = time.monotonic()
        with self._lock:
            n_due = sum(moment <= now for moment in self._used.values())
        return n_due + len(self._turns.not_announced(_AT_ONCE))

    def sync(self) -> None:
        """Tell others of sessions that they do not know, and of those that were used, if the store works."""
        if not self.is_on:
            return
        now = time.monotonic()
        with self._lock:
            due = [name for name, moment in self._used.items() if moment <= now][:_AT_ONCE]
            self._told = {name: moment for name, moment in self._told.items() if moment > now - AGAIN_S}
        with suppress(StoreError):
            for session_id in dict.fromkeys([*self._turns.not_announced(_AT_ONCE), *due]):
                row = listing.find_session(self._database, session_id)
                with self._lock:
                    self._used.pop(session_id, None)
                    self._told[session_id] = now
                if row is None or self._turns.end_of(session_id) is not None:
                    continue
                state = self._turns.state(session_id)
                meta = Meta(
                    session_id,
                    row.tokens,
                    row.created_at,
                    row.last_used,
                    row.pinned,
                    state.next,
                    state.record,
                    self._metadata_of(session_id),
                )
                try:
                    name = self._records.announce(meta)
                except StoreError:
                    self.note_used([session_id], at_once=True)
                    raise
                self._turns.announced({session_id: name})

    def _metadata_of(self, session_id: str) -> dict[str, str] | None:
        found = self._rows.find(session_id)
        if found is None or found.metadata is None:
            return None
        with suppress(msgspec.MsgspecError):  # of a damaged row
            return msgspec.json.decode(found.metadata, type=dict[str, str])
        return None

    def refresh(self) -> None:
        """Learn which sessions there are elsewhere, and which were deleted there. Raises StoreError."""
        if not self.is_on:
            return
        names = self._records.names()
        known = self._turns.names()
        new = [f"#{name}" for name in names if name not in known]
        self._turns.learn([self._records.known(meta) for meta in self._records.metas(new)])
        there = set(names)
        lost = []
        for name, session_id in known.items():
            if name not in there:
                with suppress(DamagedRecordError):
                    lives = self._records.lives(session_id, 0)
                    if lives and not lives[-1].record:
                        self._end(session_id)
                    else:
                        lost.append(session_id)
        self._turns.forget_names(lost)

    def describe(self, session_ids: Sequence[str]) -> None:
        """Learn what other servers did with these sessions. Raises StoreError."""
        if self.is_on and session_ids:
            self._turns.learn([self._records.known(meta) for meta in self._records.metas(session_ids)])

    def end_idle(self, moments: Mapping[str, float]) -> list[str]:
        """Those that no server used since the moment given, and none has pinned; they end everywhere.

        None that others know of while the store does not work.
        """
        if not self.is_on:
            return list(moments)
        try:
            metas = {meta.session: meta for meta in self._records.metas(list(moments), is_patient=True)}
            alive = {
                one.session: one
                for one in metas.values()
                if one.pinned or one.last_used + AGAIN_S >= moments[one.session]
            }
            self._turns.learn([self._records.known(meta) for meta in alive.values()])
            ended = [name for name in moments if name not in alive]
            for session_id in ended:
                with suppress(DamagedRecordError):
                    self._remove(session_id, metas.get(session_id))
        except StoreError:
            shared = set(self._turns.names().values())
            return [name for name in moments if name not in shared]
        return ended

    def _remove(self, session_id: str, meta: Meta | None) -> None:
        """Nothing is left of it, as nobody who used it has to be told that it has ended."""
        lives = self._records.lives(session_id, 0, is_patient=True)
        record = lives[-1].record if lives else ""
        self._records.remove_record(session_id, record, meta.turns if meta else 0, is_patient=True)
        if record:
            self._records.remove_lives(session_id, len(lives))
