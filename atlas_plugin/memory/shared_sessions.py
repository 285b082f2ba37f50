"""Keeps the records of sessions in step with those that servers share, where there is a store for that.

What clients said is on this server's disk first, and then in the store: where two servers record at the
same moment, the store decides who comes first, and the other's turn comes behind. While the store does not
work, turns wait here; they come behind what others recorded meanwhile.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import uuid4
from zlib import crc32

from atlas_plugin.errors import AtlasError, UnavailableError
from atlas_plugin.memory.limits import Limits
from atlas_plugin.memory.record_store import AT_ONCE, DamagedRecordError, Life, RecordStore, StoreError
from atlas_plugin.storage.shared_turns import SharedState, SharedTurns
from atlas_plugin.storage.turn_order import Turn

log = logging.getLogger("atlas")

_N_LOCKS = 64
_MAX_TRIES = 100
"""Of one turn, where others are faster each time."""
_AT_ONCE = 32
"""Sessions at each turn of the thread that tells others what waits."""


@dataclass
class Counts:
    """Since the start."""

    shared: int = 0
    """Turns that were recorded here, and others have."""
    taken: int = 0
    """Turns that others recorded, and this server has."""
    contested: int = 0
    """Turns that came behind one that another server recorded at the same moment."""
    ended: int = 0
    """Sessions that others deleted."""


class SharedSessions:
    """Any thread; calls wait for the network, but not for long. Without a store they do nothing.

    `end` removes what is here of a session that another server deleted.
    """

    def __init__(
        self,
        records: RecordStore,
        turns: SharedTurns,
        limits: Limits,
        end: Callable[[str], object],
    ) -> None:
        self.is_on = bool(records.state()["is_on"])
        self.counts = Counts()
        self._records = records
        self._turns = turns
        self._limits = limits
        self._end = end
        # Of each session one thread at a time reads what others recorded, and tells them what was here.
        self._locks = [threading.Lock() for _ in range(_N_LOCKS)]

    def new_turn(self) -> str | None:
        """The id of a turn that is to be recorded; None where nothing is shared."""
        return uuid4().hex if self.is_on else None

    def refresh(self, session_id: str) -> str | None:
        """Bring what others recorded here; None, or why that may be missing.

        Raises DamagedRecordError and UnavailableError where going on would make another conversation of it.
        """
        return self._try(session_id, turns=True)

    def share(self, session_id: str) -> str | None:
        """Tell others what was recorded here; None, or why they do not know it yet."""
        try:
            return self._try(session_id, turns=False)
        except AtlasError as error:
            return f"the exchange is recorded on this server, and not shared yet: {error.message}"

    def _try(self, session_id: str, *, turns: bool) -> str | None:
        if not self.is_on:
            return None
        try:
            with self._lock(session_id):
                if any(turn.is_result for turn in self._turns.pending(session_id)):
                    self._turns.take(session_id, {}, self._limits.max_state_bytes)  # puts it in its place
                self._pull(session_id, turns=turns)
                self._push(session_id)
        except StoreError as error:
            return (
                "the record of the session is this server's own for now, and joins what other servers "
                f"recorded when it can: {error.message}"
            )
        return None

    def sync(self) -> None:
        """Tell others what waits, as far as the store works."""
        if not self.is_on:
            return
        with suppress(StoreError):
            if self.problem is not None:
                self._records.ping()
            for session_id, record in self._turns.ends(_AT_ONCE):
                with suppress(DamagedRecordError), self._lock(session_id):
                    self._tell_end(session_id, record, is_patient=True)
            for session_id in self._turns.sessions_with_pending(_AT_ONCE):
                with suppress(DamagedRecordError, UnavailableError), self._lock(session_id):
                    self._pull(session_id, is_patient=True)
                    self._push(session_id, is_patient=True)

    def forget(self, session_id: str, *, is_here: bool) -> bool:
        """Delete what all servers have of a session; whether there was any, or this one has.

        Where the store does not work, it is told later. Raises UnavailableError where nothing is here, and
        nobody knows whether others have something.
        """
        if not self.is_on:
            return is_here
        with self._lock(session_id):
            state = self._turns.state(session_id)
            if is_here:
                self._turns.note_end(session_id, state.record)
            try:
                return self._tell_end(session_id, state.record, state.next) or is_here
            except StoreError as error:
                if not is_here:
                    raise
                log.warning("session %s is deleted here, and elsewhere later: %s", session_id, error.message)
                return True

    def begin_anew(self, session_id: str) -> None:
        """Delete what all servers have of a record, and have them begin with what is here, once it is shared.

        Where the store does not work, it is told later.
        """
        if not self.is_on:
            return
        with self._lock(session_id), suppress(StoreError):
            state = self._turns.state(session_id)
            self._turns.begin_anew(session_id, state.record)
            self._tell_end(session_id, state.record, state.next)

    @property
    def n_waiting(self) -> int:
        """Turns and deletions that others are to be told of."""
        return self._turns.n_pending() + len(self._turns.ends(_AT_ONCE))

    @property
    def problem(self) -> str | None:
        """Why the store does not work now; None where it does."""
        problem: str | None = self._records.state()["problem"]
        return problem

    def status(self) -> Mapping[str, Any] | None:
        """For the status; None where nothing is shared."""
        if not self.is_on:
            return None
        state = self._records.state()
        return {
            "problem": state["problem"],
            "retry_s": state["retry_s"],
            "waiting": self._turns.n_pending(),
            **vars(self.counts),
            "damaged": self._records.damaged,
        }

    def _lock(self, session_id: str) -> threading.Lock:
        return self._locks[crc32(session_id.encode()) % _N_LOCKS]

    # What others recorded.

    def _pull(self, session_id: str, *, is_patient: bool = False, turns: bool = True) -> None:
        """turns: False: others' turns may be left for later where the record goes on."""
        deleted = self._turns.end_of(session_id)
        if deleted is not None:
            self._tell_end(session_id, deleted, is_patient=is_patient)
        state = self._turns.state(session_id)
        lives = self._records.lives(session_id, max(state.life, 0), is_patient=is_patient)
        first = max(state.life, 0)
        is_lost = bool(state.record) and (not lives or lives[0].record != state.record)
        if is_lost and first > 0:
            first, lives = 0, self._records.lives(session_id, 0, is_patient=is_patient)
        last = lives[-1] if lives else None
        if last is None:
            if state.record:  # the store has lost it
                self._forget_shared(session_id)
        elif not last.record:
            if state.record:
                self._end_here(session_id)
        elif last.record != state.record:
            if state.record and _ended_since(lives, state.record):
                self._end_here(session_id)
            self._pull_all(session_id, last, is_patient=is_patient)
        else:
            if is_lost:
                self._turns.begin_again(session_id, last.number)
            if turns or is_lost:
                self._pull_new(session_id, last, state, is_patient=is_patient)

    def _pull_new(self, session_id: str, life: Life, state: SharedState, *, is_patient: bool) -> None:
        if not self._turns.is_adopted(session_id):
            self._turns.adopt(session_id)
        first = max(state.next - 1, 0)
        new = self._latest(self._records.turns(session_id, life.record, first, is_patient=is_patient))
        if state.next > 0 and (first not in new or new.pop(first).id != state.last):
            # It was there: the store has lost it, or all.
            self._pull_all(session_id, life, is_patient=is_patient)
        elif new:
            self._take(session_id, new)

    def _latest(self, turns: Iterable[tuple[int, Turn]]) -> dict[int, Turn]:
        """The turns by number; of those that the limit leaves out, no text but instructions."""
        kept: dict[int, Turn] = {}
        n_bytes, oldest = 0, None
        for number, turn in turns:
            kept[number] = turn
            n_bytes += turn.n_bytes
            oldest = number if oldest is None else oldest
            while n_bytes > 2 * self._limits.max_state_bytes and oldest < number:
                n_bytes -= kept[oldest].n_bytes
                kept[oldest] = kept[oldest].instructions
                oldest += 1
        return kept

    def _take(self, session_id: str, new: Mapping[int, Turn]) -> None:
        own = {turn.id for turn in self._turns.pending(session_id)}
        self._turns.take(session_id, new, self._limits.max_state_bytes)
        self.counts.taken += sum(turn.id not in own for turn in new.values())

    def _pull_all(self, session_id: str, life: Life, *, is_patient: bool) -> None:
        turns = self._latest(self._records.turns(session_id, life.record, 0, is_patient=is_patient))
        known = self._turns.state(session_id)
        if known.record != life.record:
            for meta in self._records.metas([session_id], is_patient=is_patient):
                if meta.record == life.record and meta.turns > len(turns):
                    raise UnavailableError(
                        f"turn {len(turns)} of session '{session_id}' is missing in what servers share, "
                        f"though {meta.turns} were recorded: ask a server that has it, or delete the "
                        "session; a store must not give up what has no time to live (maxmemory-policy "
                        "volatile-lru)"
                    )
        own = {turn.id for turn in self._turns.pending(session_id)}
        self._turns.take_all(session_id, life.number, life.record, turns, self._limits.max_state_bytes)
        self.counts.taken += sum(turn.id not in own for turn in turns.values())

    def _forget_shared(self, session_id: str) -> None:
        log.warning("what servers share has lost session %s: it is told again what is here", session_id)
        self._turns.lose(session_id)

    def _end_here(self, session_id: str) -> None:
        self.counts.ended += 1
        log.info("session %s was deleted by another server", session_id)
        self._end(session_id)

    # What was recorded here.

    def _push(self, session_id: str, *, is_patient: bool = False) -> None:
        if not self._turns.is_adopted(session_id):
            self._turns.adopt(session_id)
        for _ in range(_MAX_TRIES):
            pending = self._turns.pending(session_id)
            if not pending:
                self._turns.drop_empty(session_id)
                return
            state = self._turns.state(session_id)
            if not state.record and not self._begin(session_id, is_patient=is_patient):
                continue
            state = self._turns.state(session_id)
            turn = pending[0]
            if self._records.add_turn(session_id, state.record, state.next, turn, is_patient=is_patient):
                self._turns.confirm(session_id, turn.id, state.next)
                self.counts.shared += 1
            else:
                self._pull(session_id, is_patient=is_patient)
                self.counts.contested += any(one.id == turn.id for one in self._turns.pending(session_id))
        raise UnavailableError("other servers record in it all the time: it is tried again")

    def _begin(self, session_id: str, *, is_patient: bool) -> bool:
        """Make a record where there is none. False: another server did."""
        lives = self._records.lives(session_id, 0, is_patient=is_patient)
        record = uuid4().hex
        if (lives and lives[-1].record) or not self._records.begin(
            session_id, len(lives), record, is_patient=is_patient
        ):
            self._pull(session_id, is_patient=is_patient)
            return False
        self._turns.begin(session_id, len(lives), record)
        return True

    def _tell_end(self, session_id: str, record: str, n_turns: int = 0, *, is_patient: bool = False) -> bool:
        """Whether there was something to delete."""
        while True:
            try:
                lives = self._records.lives(session_id, 0, is_patient=is_patient)
            except DamagedRecordError:
                self._records.remove_lives(session_id, AT_ONCE)
                lives = self._records.lives(session_id, 0, is_patient=is_patient)
            last = lives[-1] if lives else None
            metas = self._records.metas([session_id], is_patient=is_patient)
            is_known = bool(record or metas) or (last is not None and bool(last.record))
            # A session that was begun anew since then is another.
            is_other = last is not None and bool(last.record) and bool(record) and last.record != record
            if is_known and not (is_other and _ended_since(lives, record)):
                is_alive = last is None or bool(last.record)
                if is_alive and not self._records.begin(session_id, len(lives), "", is_patient=is_patient):
                    continue
                n_turns = max([n_turns, *(meta.turns for meta in metas)])
                ended = last.record if last else ""
                self._records.remove_record(session_id, ended, n_turns, is_patient=is_patient)
            self._turns.forget_end(session_id)
            return is_known


def _ended_since(lives: Sequence[Life], record: str) -> bool:
    """Whether a record was ended by somebody, as far as these tell."""
    numbers = [life.number for life in lives if life.record == record]
    return bool(numbers) and any(life.number > numbers[-1] and not life.record for life in lives)
