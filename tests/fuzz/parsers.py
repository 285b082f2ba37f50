"""What Python reads of others, each as a function of any bytes that fails where a promise is broken."""

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from atlas_plugin.bodies import parse_body
from atlas_plugin.builtin.config import ConfigBody
from atlas_plugin.errors import AtlasError, MethodNotAllowed, NotFoundError, ValidationError
from atlas_plugin.http import Request, parse_query
from atlas_plugin.memory.api import FLUSH, OPERATIONS
from atlas_plugin.storage.conversations import ConversationStore
from atlas_plugin.storage.database import Database
from atlas_plugin.storage.listing import page
from atlas_plugin.storage.sessions import SessionStore
from atlas_plugin.testing import Application, FakeHost

BODIES: list[type[Any]] = [ConfigBody, FLUSH.body, *(operation.body for operation in OPERATIONS)]
_COLUMNS = ("tokens", "last_used", "pinned", "created_at", "chain")


def body(data: bytes) -> None:
    """A kind of body, by the first byte, and JSON: what is valid is of that kind, all else a 400."""
    if data:
        kind = BODIES[data[0] % len(BODIES)]
        try:
            assert isinstance(parse_body(Request("POST", "/v1/atlas", body=data[1:]), kind), kind)
        except ValidationError as error:
            assert (
                msgspec.json.decode(msgspec.json.encode(error.to_body()))["error"]["type"]
                == "validation_error"
            )


@cache
def _application() -> Application:
    application = Application(FakeHost())
    application.start()
    return application


def path(data: bytes) -> None:
    """A path and a query: the route that is found matches; else it is a 404 or a 405."""
    name, _, query = data.decode(errors="replace").partition("?")
    assert all(isinstance(value, str) for value in parse_query(query).values())
    try:
        route, parameters = _application().plugins.router.match("GET", f"/v1/atlas/{name}")
        assert route.method == "GET"
        assert all(parameters.values())
    except (NotFoundError, MethodNotAllowed) as error:
        assert msgspec.json.decode(msgspec.json.encode(error.to_body()))["error"]["code"] == error.status


@cache
def _database() -> tuple[TemporaryDirectory[str], Database]:
    directory = TemporaryDirectory()
    return directory, Database(Path(directory.name))


def rows(data: bytes) -> None:
    """An id and values of a damaged row, one a line: what is read is of its type; no other row suffers."""
    _, database = _database()
    lines = [line for line, _ in zip(cycle(data.split(b"\n")), range(6), strict=False)]
    with suppress(_UndoneError), database.write("test") as connection:
        connection.execute("INSERT INTO sessions VALUES ('sound', 1, 1.0, 0, 1.0, NULL)")
        connection.execute("INSERT INTO chains VALUES ('sound', 'root', 1.0, zeroblob(32))")
        # IGNORE: SQLite stores a NaN as NULL, which no file can hold in these columns.
        connection.execute(
            "INSERT OR IGNORE INTO messages VALUES ('sound', 0, 1, ?, NULL)", (_value(lines[0]),)
        )
        damaged = [lines[0], *map(_value, lines[1:])]
        connection.execute(
            "INSERT OR IGNORE INTO sessions VALUES (CAST(? AS TEXT), ?, ?, ?, ?, NULL)", damaged[:5]
        )
        connection.execute("INSERT OR IGNORE INTO chains VALUES ('sound', ?, ?, ?)", damaged[-3:])
        stored = SessionStore(database).page()
        assert "sound" in [one.session_id for one in stored]
        for one in stored:
            assert one.session_id.isascii()
            assert isinstance(one.tokens, int)
            assert isinstance(one.last_used, float)
            assert all(len(key) == 64 for chain in one.chains.values() for key in chain)
            assert all(isinstance(root, str) for root in one.chains)
        assert msgspec.json.encode(page(database, 10))
        assert all(isinstance(message, bytes) for message in ConversationStore(database).load("sound"))
        raise _UndoneError("undone")


class _UndoneError(AtlasError):
    """Leaves the database as it was."""


def _value(line: bytes) -> Any:
    with suppress(ValueError):
        return int(line) % (1 << 63)
    with suppress(ValueError):
        return float(line)
    return line if line[:1] == b"b" else line.decode(errors="replace")


TARGETS: dict[str, Callable[[bytes], None]] = {"body": body, "path": path, "rows": rows}
