"""How many heaps malloc has: each keeps what was freed in it to itself."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.server.conftest import StartServer
from tests.server.conversations import ONE_THREAD
from tests.server.harness import Server

CLIENTS = 16
# glibc reserves so much for each heap but the first, at a multiple of it: what it uses, then what it may.
HEAP = 64 << 20
_MAPPING = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) (\S{4}) 00000000 00:00 0 *$", re.MULTILINE)


def heaps(server: Server) -> int:
    """The heaps of a server's process, the first included."""
    assert server.process is not None
    maps = Path(f"/proc/{server.process.pid}/maps").read_text(encoding="ascii")
    found = [(int(begin, 16), int(end, 16), access) for begin, end, access in _MAPPING.findall(maps)]
    used = {begin: end for begin, end, access in found if access == "rw-p" and begin % HEAP == 0}
    reserved = {begin: end for begin, end, access in found if access == "---p"}
    return 1 + sum(reserved.get(end) == begin + HEAP for begin, end in used.items())


@pytest.mark.parametrize(
    ("environment", "expected"),
    [({}, 2), ({"MALLOC_ARENA_MAX": "5"}, 5), ({"ATLAS_ENABLED": "0", "MALLOC_ARENA_MAX": "5"}, 5)],
    ids=["unless told otherwise", "as the environment says", "as without ATLAS"],
)
def test_threads_share_heaps(start_server: StartServer, environment: dict[str, str], expected: int) -> None:
    server = start_server([*ONE_THREAD, "--threads-http", str(CLIENTS)], environment)
    body = {"prompt": "My name is Nora.", "n_predict": 8}
    with ThreadPoolExecutor(CLIENTS) as clients:
        answers = list(clients.map(lambda _: server.post("/completion", body), range(4 * CLIENTS)))
    assert {answer.status_code for answer in answers} == {200}
    assert heaps(server) == expected
