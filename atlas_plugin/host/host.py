"""The server as Python sees it: the interface, and its implementation over the functions of `atlas-abi.h`."""

from collections.abc import Mapping, Sequence
from enum import IntEnum
from types import MappingProxyType
from typing import Any, Literal, Protocol

from atlas_plugin import facts, json_text
from atlas_plugin.errors import ServerError
from atlas_plugin.host.client import HostClient
from atlas_plugin.host.hook_server import HookCall, HookServer
from atlas_plugin.host.settings import Settings, SettingsChange
from atlas_plugin.host.verdicts import Step
from atlas_plugin.http import Headers, Request, parse_query
from atlas_plugin.metrics.families import Family, decode_families
from atlas_plugin.storage.memory_records import (
    BlockChange,
    BlockChanges,
    Conversation,
    MemoryEvents,
    Session,
    SessionEdit,
    pack_order,
    session_of,
    unpack_events,
)

SessionAction = Literal["restore", "pin", "unpin", "forget", "expire"]


class LogLevel(IntEnum):
    """The numbers of `ATLAS_LOG_*`."""

    DEBUG = facts.LOG_DEBUG
    INFO = facts.LOG_INFO
    WARN = facts.LOG_WARN
    ERROR = facts.LOG_ERROR


class ServerCall(IntEnum):
    """What the server asks of Python: the numbers of `ATLAS_CALL_*`."""

    HISTORY = facts.CALL_HISTORY
    RECORD = facts.CALL_RECORD
    STACKS = facts.CALL_STACKS
    SYNC = facts.CALL_SYNC
    RESPONSE_ITEMS = facts.CALL_RESPONSE_ITEMS
    KEEP_RESPONSE = facts.CALL_KEEP_RESPONSE
    KEEP_COMPLETION = facts.CALL_KEEP_COMPLETION


class Host(HostClient, Protocol):
    """What the server offers to plugins. Any thread may call all methods that do not say otherwise.

    All but `log` raise ServerError when the server cannot answer.
    """

    def log(self, level: LogLevel, text: str) -> None:
        """Write one record to the server's log; plugins use `logging`, which ends here."""

    def status(self) -> dict[str, Any]:
        """Live facts of the server, `uptime_seconds` among them."""

    def settings(self) -> Settings:
        """The settings in effect now."""

    def sessions(self, *, since: int = 0, ids: Sequence[str] | None = None) -> list[Session]:
        """Those that changed after version `since`, least version first, or those of `ids` that there are.

        facts.MAX_SESSIONS at most; then ask again, from the version of the last.
        """

    def metrics(self) -> list[Family]:
        """What the server has counted and measured so far, as families of Prometheus."""

    def requests(self, since: int = 0) -> tuple[int, list[dict[str, Any]]]:
        """The number of the newest completion that ended, and those after number `since`, oldest first.

        facts.MAX_REQUESTS at most: ask again from the last one's number. `atlas-abi.h` lists what each has.
        """


class ServerHost(Host, HookServer, Protocol):
    """What the server offers to ATLAS's own plugins besides, by the same rules."""

    def change_settings(self, values: Mapping[str, Any]) -> SettingsChange:
        """Change all of these, as `Settings` has their values, or none."""

    def request_schema(self) -> dict[str, Any]:
        """JSON Schemas of the `atlas` object of a completion: `request`, and `answer` of its answer."""

    def memory_events(self, *, with_saved: bool = False) -> MemoryEvents:
        """Take the oldest events off the queue, facts.MAX_EVENTS at most; for the plugin `eviction` alone.

        with_saved: from now on, until a call without, it is told what became durable, too.
        """

    def set_priorities(self, layer: int, priorities: Sequence[int]) -> None:
        """Set those of the entries touched in the last `memory_events`, in that order. `layer` is 1 or 2.

        For the thread that called `memory_events`. An entry touched again since keeps what it has.
        """

    def block_changes(self, root: str, *, from_start: bool = False) -> BlockChanges:
        """Take which blocks below a root came into a layer or left it; for the plugin `kv_events` alone.

        from_start: have all that is there told anew.
        """

    def edit_session(self, action: SessionAction, session_id: str, **state: Any) -> SessionEdit:
        """Change a session at once. `state` is for restore: tokens, chain, last_used and pinned.

        forget removes the session and its private entries; expire removes the session and lets entries age.
        """

    def conversations(self, session_id: str = "") -> list[Conversation]:
        """Take those off the queue that clients sent whole, the oldest first.

        All of one session; without one facts.MAX_CONVERSATIONS at most: ask again until there are none.
        """

    def seal(self, name: str, data: bytes) -> bytes:
        """Encrypt bytes that are to be kept, under a name without zero bytes.

        Raises ServerError where the status does not say in `in_effect` that what is kept is encrypted.
        """

    def unseal(self, name: str, data: bytes) -> bytes:
        """What was encrypted under that name. Raises ServerError where it was not, or was changed since."""

    def ask_records(self, question: Mapping[str, Any], value: bytes = b"") -> tuple[dict[str, Any], bytes]:
        """Small values that servers share, as ATLAS_QUERY_RECORDS has it; may wait for the network.

        The answer, and the values behind it. One with `failure` is the store's.
        """


class EmbeddedHost(HostClient):
    """The host over `atlas_host_api`. `ffi` and `lib` are those of the embedding module.

    `host` is the server's own pointer, which says whose state is asked for.
    """

    def __init__(self, ffi: Any, lib: Any, api: Any, host: Any) -> None:
        self._ffi = ffi
        self._lib = lib
        self._api = api
        self._host = host

    def log(self, level: LogLevel, text: str) -> None:
        self._api.log(int(level), self.borrow(text.encode(errors="replace")))

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = json_text.decode(self._query(self._lib.ATLAS_QUERY_STATUS))
        return status

    def settings(self) -> Settings:
        return Settings(json_text.decode(self._query(self._lib.ATLAS_QUERY_SETTINGS)))

    def change_settings(self, values: Mapping[str, Any]) -> SettingsChange:
        answer = self._query(self._lib.ATLAS_QUERY_SETTINGS_CHANGE, json_text.encode(dict(values)))
        return SettingsChange(**json_text.decode(answer))

    def request_schema(self) -> dict[str, Any]:
        schemas: dict[str, Any] = json_text.decode(self._query(self._lib.ATLAS_QUERY_REQUEST_SCHEMA))
        return schemas

    def memory_events(self, *, with_saved: bool = False) -> MemoryEvents:
        argument = b"saved" if with_saved else b""
        return unpack_events(self._query(self._lib.ATLAS_QUERY_MEMORY_EVENTS, argument))

    def set_priorities(self, layer: int, priorities: Sequence[int]) -> None:
        self._query(self._lib.ATLAS_QUERY_MEMORY_ORDER, pack_order(layer, priorities))

    def block_changes(self, root: str, *, from_start: bool = False) -> BlockChanges:
        argument = json_text.encode({"root": root, "from_start": from_start})
        answer = json_text.decode(self._query(self._lib.ATLAS_QUERY_BLOCK_CHANGES, argument))
        return BlockChanges([BlockChange(*one) for one in answer["changes"]], answer["anew"], answer["more"])

    def sessions(self, *, since: int = 0, ids: Sequence[str] | None = None) -> list[Session]:
        argument = {"since": since} if ids is None else {"ids": list(ids)}
        answer = self._query(self._lib.ATLAS_QUERY_SESSIONS, json_text.encode(argument))
        return [session_of(document) for document in json_text.decode(answer)["sessions"]]

    def edit_session(self, action: SessionAction, session_id: str, **state: Any) -> SessionEdit:
        argument = {"action": action, "session_id": session_id, **state}
        answer = self._query(self._lib.ATLAS_QUERY_SESSION_EDIT, json_text.encode(argument))
        return SessionEdit(**json_text.decode(answer))

    def conversations(self, session_id: str = "") -> list[Conversation]:
        answer = json_text.decode(self._query(self._lib.ATLAS_QUERY_CONVERSATIONS, session_id.encode()))
        return [Conversation(**document) for document in answer]

    def seal(self, name: str, data: bytes) -> bytes:
        return self._query(self._lib.ATLAS_QUERY_SEAL, name.encode() + b"\0" + data)

    def unseal(self, name: str, data: bytes) -> bytes:
        return self._query(self._lib.ATLAS_QUERY_UNSEAL, name.encode() + b"\0" + data)

    def ask_records(self, question: Mapping[str, Any], value: bytes = b"") -> tuple[dict[str, Any], bytes]:
        argument = json_text.encode(question) + b"\n" + value
        head, _, values = self._query(self._lib.ATLAS_QUERY_RECORDS, argument).partition(b"\n")
        answer: dict[str, Any] = json_text.decode(head)
        return answer, values

    def metrics(self) -> list[Family]:
        return decode_families(self._query(self._lib.ATLAS_QUERY_METRICS))

    def requests(self, since: int = 0) -> tuple[int, list[dict[str, Any]]]:
        answer = json_text.decode(
            self._query(self._lib.ATLAS_QUERY_REQUESTS, json_text.encode({"since": since}))
        )
        return answer["last"], answer["requests"]

    def call_route(
        self, method: str, path: str, body: bytes, tenant: str, timeout_s: float
    ) -> tuple[int, bytes]:
        argument = {
            "method": method,
            "path": path,
            "body": body.decode(),
            "tenant": tenant,
            "is_admin": not tenant,
            "timeout_ms": max(1, round(timeout_s * 1000)),
        }
        answer = json_text.decode(self._query(self._lib.ATLAS_QUERY_ASK, json_text.encode(argument)))
        return answer["status"], answer["body"].encode()

    def set_request_hooks(self, number: int, rows: Sequence[dict[str, Any]]) -> None:
        self._query(self._lib.ATLAS_QUERY_HOOKS, json_text.encode({"number": number, "hooks": rows}))

    def set_tiers(self, number: int, rows: Sequence[dict[str, Any]]) -> bool:
        argument = json_text.encode({"number": number, "tiers": rows})
        return bool(json_text.decode(self._query(self._lib.ATLAS_QUERY_TIERS, argument))["is_used"])

    def hook_tables(self) -> list[int]:
        numbers: list[int] = json_text.decode(self._query(self._lib.ATLAS_QUERY_HOOK_TABLES))
        return numbers

    def hook_tallies(self) -> list[dict[str, Any]]:
        tallies: list[dict[str, Any]] = json_text.decode(self._query(self._lib.ATLAS_QUERY_HOOKS))
        return tallies

    def enable_hooks(self, plugin: str) -> bool:
        answer = self._query(self._lib.ATLAS_QUERY_HOOKS_ENABLE, json_text.encode({"plugin": plugin}))
        return bool(json_text.decode(answer)["was_off"])

    def hook_worker_wanted(self, queue: int, has_failed: bool) -> bool:
        wanted = self._api.hook_worker_wanted(self._host, queue, has_failed)
        return bool(wanted == self._lib.ATLAS_OK)

    def take_hook_call(self, queue: int, previous: int) -> HookCall | None:
        work = self._ffi.new("atlas_hook_work *")
        work.number = previous
        if self._api.hook_take(self._host, queue, work) != self._lib.ATLAS_OK:
            return None
        return HookCall(
            work.number,
            work.table,
            work.request,
            work.hook,
            self.bytes(work.head),
            self.bytes(work.body),
            work.payload,
        )

    def hook_step(self, queue: int, number: int, step: Step) -> int:
        response = step.response
        if response is None:
            return int(self._api.hook_step(self._host, queue, number, step.number, self._ffi.NULL))
        sink = self._api.sink_new()
        if not sink:
            failed = self._lib.ATLAS_STEP_FAIL
            return int(self._api.hook_step(self._host, queue, number, failed, self._ffi.NULL))
        try:
            self.write_head(sink, response.status, response.content_type, response.headers)
            for piece in (response.body, *step.pieces):
                self.write(sink, piece)
            return int(self._api.hook_step(self._host, queue, number, step.number, sink))
        finally:
            self._api.sink_free(sink)

    def read_payload(self, queue: int, number: int, size: int) -> bytearray | None:
        # The copy is made without the interpreter lock.
        data = bytearray(size)
        to = self._ffi.from_buffer(data, require_writable=True) if size else self._ffi.NULL
        is_read = self._api.hook_read(self._host, queue, number, to, size) == self._lib.ATLAS_OK
        return data if is_read else None

    def _query(self, what: int, argument: bytes = b"") -> bytes:
        sink = self._api.sink_new()
        if not sink:
            raise ServerError("The server is out of memory")
        try:
            if self._api.query(self._host, what, self.borrow(argument), sink) != self._lib.ATLAS_OK:
                reason = self.text(self._api.sink_text(sink))
                raise ServerError(reason or "The server did not answer a query for its state")
            return self.bytes(self._api.sink_text(sink))
        finally:
            self._api.sink_free(sink)

    def read(self, request: Any) -> Request:
        """An atlas_http_request as plugins see it."""
        pairs = (request.headers[i] for i in range(request.n_headers))
        return Request(
            method=self.text(request.method),
            path=self.text(request.path),
            query=parse_query(self.text(request.query)),
            headers=Headers((self.text(pair.name), self.text(pair.value)) for pair in pairs),
            body=self.bytes(request.body),
            tenant=self.text(request.tenant),
            is_admin=bool(request.is_admin),
        )

    def write_head(
        self,
        sink: Any,
        status: int,
        content_type: str | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Write all of an answer to its sink but the body."""
        self._api.sink_status(sink, status)
        for name, value in (("Content-Type", content_type), *headers.items()):
            if value is not None:
                # Named, as borrowed memory must outlive the call (convention 3).
                name_bytes, value_bytes = name.encode(), value.encode()
                self._api.sink_header(sink, self.borrow(name_bytes), self.borrow(value_bytes))

    def write(self, sink: Any, data: bytes | bytearray | memoryview) -> None:
        """Append to the sink's body."""
        self._api.sink_body(sink, self.borrow(data))

    def write_stream(self, sink: Any, stream: int) -> None:
        """Have the body follow by that stream."""
        self._api.sink_stream(sink, stream)

    def borrow(self, data: bytes | bytearray | memoryview) -> tuple[Any, int]:
        """`data` as the initialiser of an atlas_slice; it must live until the call that takes it returns."""
        view = memoryview(data)
        return self._ffi.from_buffer("char[]", view), view.nbytes

    def text(self, piece: Any) -> str:
        """The text of an atlas_slice; what is not UTF-8 in it is replaced."""
        return self.bytes(piece).decode(errors="replace")

    def bytes(self, piece: Any) -> bytes:
        """A copy of an atlas_slice's bytes."""
        return bytes(self._ffi.buffer(piece.data, piece.size)) if piece.size else b""
