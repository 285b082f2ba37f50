"""What servers share of sessions, in the store that `--atlas-shared-url` names: keys, documents, faults.

A session's records of one name follow each other: each "life" is begun, or ended, by a document that only
one server can write. A record is a sequence of turns, each a document of its own, whose number only one
server can take. What is read is checked: nobody knows who wrote it.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn, Protocol, TypeVar

import msgspec
from msgspec import Struct

from atlas_plugin import json_text
from atlas_plugin.errors import AtlasError, ServerError, UnavailableError
from atlas_plugin.responses.forms import is_item
from atlas_plugin.responses.metadata import Metadata
from atlas_plugin.storage.shared_turns import KnownSession
from atlas_plugin.storage.turn_order import Turn

_Document = TypeVar("_Document")

AT_ONCE = 64
"""Documents in one question."""
_MAX_DEPTH = 64
_MAX_NAMES = 1_000_000
_MAX_NUMBER = 1_000_000
"""Of turns and lives: what has more was made by nobody who said something."""
_META = "meta"


class Asking(Protocol):
    """The host, as far as it is needed here."""

    def ask_records(self, question: Mapping[str, Any], value: bytes = b"") -> tuple[dict[str, Any], bytes]:
        """As ATLAS_QUERY_RECORDS: the answer, and the values behind it."""


class StoreError(AtlasError):
    """The store cannot be asked now, or refuses."""

    status = UnavailableError.status
    type = UnavailableError.type


class DamagedRecordError(ServerError):
    """A document is not what a server of this fleet wrote under its name."""


class Life(Struct, frozen=True, omit_defaults=True):
    """Begins a record, or ends the one before."""

    session: str
    number: int
    record: str = ""
    """The id of the record that begins; empty: none does."""
    time: float = 0.0


class _Turn(Struct, frozen=True, omit_defaults=True):
    session: str
    record: str
    number: int
    id: str
    messages: list[msgspec.Raw]
    replaces: bool = False
    time: float = 0.0


class Meta(Struct, frozen=True):
    """What a list says of a session, as of its last use on some server; times are in seconds since 1970."""

    session: str
    tokens: int
    created: float
    last_used: float
    pinned: bool
    turns: int
    """How many the record has at least."""
    record: str
    metadata: Metadata | None = None
    """Of a conversation that a client made; older servers know none."""


class RecordStore:
    """Documents by their names. Any thread; each call waits for the network.

    All raise StoreError, and those that read DamagedRecordError. `is_patient`: no request waits.
    """

    def __init__(self, host: Asking) -> None:
        self.damaged = 0
        """Documents that were not what they should be."""
        self._host = host

    def state(self) -> dict[str, Any]:
        """Whether there is a store, which, and why it does not work now. Asks nobody."""
        return self._host.ask_records({"do": "state"})[0]

    def ping(self) -> None:
        """Find out whether it works again."""
        self._ask({"do": "ping"}, is_patient=True)

    def lives(self, session: str, first: int, *, is_patient: bool = False) -> list[Life]:
        """The documents of a session's lives, from a number on."""
        found: list[Life] = []
        while len(found) % AT_ONCE == 0:
            keys = [(session, f"life.{number}") for number in _following(first + len(found))]
            values = self._get(keys, is_patient=is_patient)
            for value in values:
                number = first + len(found)
                if number > _MAX_NUMBER:
                    self._refuse(f"life {number} of session '{session}'", "nobody has as many")
                life = self._checked(value, Life, f"life {number} of session '{session}'")
                if (life.session, life.number) != (session, number):
                    self._refuse(f"life {number} of session '{session}'", "it is another's")
                found.append(life)
            if len(values) < AT_ONCE:
                break
        return found

    def begin(self, session: str, number: int, record: str, *, is_patient: bool = False) -> bool:
        """Begin a record, or with an empty one end what there is. Whether this is who did that."""
        life = Life(session, number, record, time.time())
        return self._create((session, f"life.{number}"), life, is_patient=is_patient)

    def turns(
        self, session: str, record: str, first: int, *, is_patient: bool = False
    ) -> Iterator[tuple[int, Turn]]:
        """The turns from a number on, up to the first that is not there, with their numbers."""
        number, n_asked = first, 0
        while number == first + n_asked:
            keys = [(record, f"turn.{each}") for each in _following(number)]
            values, is_enough = self._get_some(keys, is_patient=is_patient)
            for value in values:
                yield number, self._turn(value, session, record, number)
                number += 1
            n_asked += len(values) if is_enough else AT_ONCE

    def _turn(self, value: bytes, session: str, record: str, number: int) -> Turn:
        what = f"turn {number} of session '{session}'"
        if number > _MAX_NUMBER:
            self._refuse(what, "nobody says as much")
        turn = self._checked(value, _Turn, what)
        if (turn.session, turn.record, turn.number) != (session, record, number) or not turn.id:
            self._refuse(what, "it is another's")
        messages = []
        for raw in turn.messages:
            message = json_text.decode(bytes(raw))
            if not isinstance(message, dict) or not (
                is_item(message) or isinstance(message.get("role"), str)
            ):
                self._refuse(what, "a message has no role")
            if json_text.is_deeper(message, _MAX_DEPTH):
                self._refuse(what, "a message is nested too deeply")
            messages.append(json_text.encode(message))
        return Turn(turn.id, messages, turn.replaces)

    def add_turn(
        self, session: str, record: str, number: int, turn: Turn, *, is_patient: bool = False
    ) -> bool:
        """Whether the number was free, and is this turn's now."""
        messages = [msgspec.Raw(message) for message in turn.messages]
        document = _Turn(session, record, number, turn.id, messages, turn.replaces, time.time())
        return self._create((record, f"turn.{number}"), document, is_patient=is_patient)

    def remove_record(self, session: str, record: str, n_turns: int, *, is_patient: bool = False) -> None:
        """Remove the text of a record that has ended, and what lists say of its session."""
        self._ask({"do": "remove_name", "owner": session}, is_patient=is_patient)
        keys = [(session, _META), *((record, f"turn.{number}") for number in range(n_turns) if record)]
        self._remove(keys, is_patient=is_patient)
        # Others may have added some meanwhile.
        number = n_turns
        while record and (values := self._get([(record, f"turn.{each}") for each in _following(number)])):
            self._remove(
                [(record, f"turn.{each}") for each in range(number, number + len(values))],
                is_patient=is_patient,
            )
            number += len(values)

    def remove_lives(self, session: str, n_lives: int) -> None:
        """Leave nothing that says that there was such a session."""
        self._remove([(session, f"life.{number}") for number in range(n_lives)], is_patient=True)

    # What lists need.

    def announce(self, meta: Meta) -> str:
        """Have a session in lists; the name that the store has for it."""
        self._ask({"do": "replace", "keys": [(meta.session, _META)]}, json_text.encode(meta), is_patient=True)
        name: str = self._ask({"do": "add_name", "owner": meta.session}, is_patient=True)[0]["name"]
        return name

    def names(self, *, is_patient: bool = False) -> list[str]:
        """The names of all sessions in lists."""
        names: list[str] = []
        most = 1000
        while True:
            question = {"do": "names", "after": names[-1] if names else "", "most": most}
            page: list[str] = self._ask(question, is_patient=is_patient)[0]["names"]
            # A store that answers the same again and again has no end.
            is_next = not names or (page and page[0] > names[-1])
            names += page if is_next else []
            if len(page) < most or not is_next or len(names) >= _MAX_NAMES:
                return names

    def metas(self, owners: Sequence[str], *, is_patient: bool = False) -> list[Meta]:
        """What lists say of sessions, by their ids or by '#' and the names that the store has for them.

        Those of which nothing is there, or what is there is damaged, are left out.
        """
        found = []
        for begin in range(0, len(owners), AT_ONCE):
            asked = owners[begin : begin + AT_ONCE]
            while asked:
                values, damaged = self._get_all([(owner, _META) for owner in asked], is_patient=is_patient)
                for owner, value in zip(asked, values, strict=False):
                    if value is not None and (meta := self._meta(owner, value)) is not None:
                        found.append(meta)
                self.damaged += damaged
                asked = asked[len(values) + damaged :] if len(values) + damaged > 0 else []
        return found

    def _meta(self, owner: str, value: bytes) -> Meta | None:
        try:
            meta = self._checked(value, Meta, f"what is said of session {owner}")
            # One that was written for another's name would show up as that one's.
            is_own = owner in (meta.session, f"#{self.name_of(meta.session)}")
            if (
                not is_own
                or meta.tokens < 0
                or not 0 <= meta.last_used < 1e11
                or not 0 <= meta.created < 1e11
            ):
                self._refuse(f"what is said of session {owner}", "it is another's")
        except DamagedRecordError:
            return None
        return meta

    def name_of(self, session: str) -> str:
        """The name that the store has for a session. Asks nobody."""
        name: str = self._host.ask_records({"do": "name", "owner": session})[0]["name"]
        return name

    def known(self, meta: Meta) -> KnownSession:
        """The same as rows have it."""
        return KnownSession(
            meta.session,
            self.name_of(meta.session),
            meta.tokens,
            meta.created,
            meta.last_used,
            meta.pinned,
            None if meta.metadata is None else json_text.encode(meta.metadata),
        )

    # The host.

    def _create(self, key: tuple[str, str], document: Struct, *, is_patient: bool) -> bool:
        question = {"do": "create", "keys": [key]}
        return bool(self._ask(question, json_text.encode(document), is_patient=is_patient)[0]["created"])

    def _remove(self, keys: Sequence[tuple[str, str]], *, is_patient: bool) -> None:
        for begin in range(0, len(keys), AT_ONCE):
            self._ask({"do": "remove", "keys": keys[begin : begin + AT_ONCE]}, is_patient=is_patient)

    def _get(self, keys: Sequence[tuple[str, str]], *, is_patient: bool = False) -> list[bytes]:
        return self._get_some(keys, is_patient=is_patient)[0]

    def _get_some(self, keys: Sequence[tuple[str, str]], *, is_patient: bool) -> tuple[list[bytes], bool]:
        answer, values = self._ask({"do": "get", "keys": keys}, is_patient=is_patient)
        if answer["damaged"] is not None:
            owner, part = keys[answer["damaged"]]
            self._refuse(f"{part} of {owner}", "it was not written under that name, or by another secret")
        return [value for value in _cut(answer["sizes"], values) if value is not None], answer["is_enough"]

    def _get_all(
        self, keys: Sequence[tuple[str, str]], *, is_patient: bool
    ) -> tuple[list[bytes | None], bool]:
        answer, values = self._ask({"do": "get", "keys": keys, "all": True}, is_patient=is_patient)
        return list(_cut(answer["sizes"], values)), answer["damaged"] is not None

    def _ask(
        self, question: Mapping[str, Any], value: bytes = b"", *, is_patient: bool
    ) -> tuple[dict[str, Any], bytes]:
        answer, values = self._host.ask_records({**question, "is_patient": is_patient}, value)
        if "failure" in answer:
            raise StoreError(answer["problem"])
        return answer, values

    def _checked(self, value: bytes, kind: type[_Document], what: str) -> _Document:
        try:
            return msgspec.json.decode(value, type=kind)
        except (ValueError, RecursionError) as error:
            self._refuse(what, str(error))

    def _refuse(self, what: str, problem: str) -> NoReturn:
        self.damaged += 1
        address = self.state().get("address", "")
        raise DamagedRecordError(
            f"{what} in {address} is damaged ({problem}): it is not used; ask a server that has it, or "
            "delete the session"
        )


def _following(number: int) -> range:
    return range(number, number + AT_ONCE)


def _cut(sizes: Sequence[int | None], values: bytes) -> Iterator[bytes | None]:
    at = 0
    for size in sizes:
        yield None if size is None else values[at : at + size]
        at += size or 0
