"""The log: JSON lines, what they say of a request, and requests that were slow."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.server.conftest import StartServer
from tests.server.harness import BINARY, Server, write_plugin

PHASES = {"total", "overhead", "wait", "queue", "restore", "prefill", "first_token", "decode"}

PLUGIN = """
import logging
from atlas_plugin import hookimpl

@hookimpl
def register_routes(routes):
    @routes.get("/v1/atlas/x/say")
    def say(request):
        logging.getLogger("mine").warning('two lines,\\n"quoted" \\N{SNOWMAN}')
        return {}
"""


def records(server: Server) -> list[dict[str, Any]]:
    """Every line that is a JSON object."""
    return [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]


def record_of(server: Server, request_id: str) -> dict[str, Any]:
    """The line of a request, once it is there."""
    found: list[dict[str, Any]] = []

    def is_there() -> bool:
        found[:] = [one for one in records(server) if one.get("request", {}).get("request_id") == request_id]
        return bool(found)

    server.wait_until(is_there, timeout=10.0)
    return found[0]


def complete(server: Server, request_id: str, **fields: Any) -> Any:
    body = {"prompt": "My name is Ada.", "n_predict": 4, "ignore_eos": True, **fields}
    return server.client.post("/completion", json=body, headers={"X-Request-Id": request_id})


class TestJson:
    def test_a_request_is_one_object(self, start_server: StartServer) -> None:
        server = start_server(["--atlas-log-format", "json"])
        answer = complete(server, "first", atlas={"session_id": "ada-lovelace"})
        assert answer.status_code == 200
        record = record_of(server, "first")
        assert record.keys() == {"time", "level", "message", "request"}
        assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record["time"])
        assert record["level"] == "info"
        request = record["request"]
        assert (request["route"], request["outcome"], request["atlas"]) == ("completion", "ok", True)
        assert request["tokens"]["answer"] == 4
        assert request["tokens"]["prompt"] == answer.json()["atlas"]["prompt_tokens"]
        assert re.fullmatch("[0-9a-f]{12}", request["session"])
        assert request["ms"].keys() == PHASES
        times = request["ms"]
        assert times["restore"] is None
        parts = sum(times[part] for part in ("wait", "queue", "prefill", "decode"))
        assert 0 < times["prefill"] < times["first_token"] < times["total"]
        assert 0.5 * times["total"] < parts <= 1.001 * times["total"]

    def test_the_id_of_a_session_is_not_in_the_log(self, start_server: StartServer) -> None:
        server = start_server(["--atlas-log-format", "json"])
        complete(server, "first", atlas={"session_id": "ada-lovelace"})
        complete(server, "again", atlas={"session_id": "ada-lovelace"})
        complete(server, "other", atlas={"session_id": "grace-hopper"})
        first, again, other = (record_of(server, name)["request"] for name in ("first", "again", "other"))
        assert first["session"] == again["session"] != other["session"]
        assert "lovelace" not in server.log

    def test_what_is_restored_says_so(self, start_server: StartServer, tmp_path: Path) -> None:
        prompt = " ".join(f"word{i}" for i in range(300))
        server = start_server(
            [
                "--atlas-log-format",
                "json",
                "--atlas-block-tokens",
                "16",
                "-np",
                "1",
                "--atlas-memory-path",
                tmp_path,
            ]
        )
        complete(server, "first", prompt=prompt)
        complete(server, "between", prompt="Something else " * 20)
        complete(server, "again", prompt=prompt)
        request = record_of(server, "again")["request"]
        assert request["memory"] == {"result": "restored", "layer": 1, "moved": ""}
        assert request["ms"]["restore"] > 0
        assert 0 < request["tokens"]["reused"] < request["tokens"]["prompt"]
        assert record_of(server, "first")["request"]["memory"] == {
            "result": "no_match",
            "layer": 0,
            "moved": "",
        }

    def test_every_line_is_an_object(self, start_server: StartServer) -> None:
        """With llama-server's own lines turned off, the log is JSON from its first line to its last."""
        server = start_server(["--atlas-log-format", "json", "-lv", "-1"])
        complete(server, "refused", atlas={"batch_size": 0})
        complete(server, "last")
        record_of(server, "last")
        server.stop()
        assert [json.loads(line)["level"] for line in server.log.splitlines()]

    def test_lines_of_plugins(self, start_server: StartServer, tmp_path: Path) -> None:
        plugin = write_plugin(tmp_path, PLUGIN)
        server = start_server(["--atlas-plugin", plugin, "--atlas-log-format", "json"])
        server.get("/v1/atlas/x/say")
        said = 'mine: two lines,\n"quoted" ☃'
        server.wait_until(lambda: any(one["message"] == said for one in records(server)), timeout=10.0)

    def test_changed_while_it_runs(self, start_server: StartServer) -> None:
        server = start_server()
        server.post("/v1/atlas/config", {"settings": {"log_format": "json"}})
        complete(server, "first")
        record_of(server, "first")
        server.post("/v1/atlas/config", {"settings": {"log_format": "text"}})
        complete(server, "in-text")
        assert server.logged("[ATLAS] Request processed in")
        assert "in-text" not in server.log

    @pytest.mark.parametrize("given", ["", "two words", "x" * 200, 'qu"ote'])
    def test_a_bad_request_id_is_replaced(self, start_server: StartServer, given: str) -> None:
        server = start_server(["--atlas-log-format", "json"])
        complete(server, given)
        complete(server, "last")
        record_of(server, "last")
        ids = [one["request"]["request_id"] for one in records(server) if "request" in one]
        assert re.fullmatch("[0-9a-f]{16}", ids[0])

    def test_outcomes(self, start_server: StartServer) -> None:
        server = start_server(["--atlas-log-format", "json", "--atlas-key-requests-per-s", "0.01"])
        assert complete(server, "unread", atlas={"batch_size": 0}).status_code == 400
        assert record_of(server, "unread")["request"]["outcome"] == "error"
        assert complete(server, "bad", prompt=None).status_code == 400
        assert record_of(server, "bad")["request"]["outcome"] == "error"
        assert complete(server, "over").status_code == 429
        assert record_of(server, "over")["request"]["outcome"] == "refused"


class TestSlowRequests:
    def test_only_those_over_the_threshold(self, start_server: StartServer) -> None:
        server = start_server()
        complete(server, "before")
        server.post("/v1/atlas/config", {"settings": {"slow_request_ms": 0.001}})
        complete(server, "after")
        assert server.logged("Slow request after: completion took ")
        line = next(line for line in server.log.splitlines() if "Slow request after" in line)
        times = "".join(
            rf" {phase} [\d.]+ ms" for phase in ("overhead", "wait", "queue", "prefill", "decode")
        )
        tokens = r"\d+ prompt tokens \(\d+ reused\), 4 answer tokens, outcome ok"
        assert re.search(rf"took \d+ ms, over 0 ms:{times}; {tokens}", line)
        assert "Slow request before" not in server.log

    def test_as_json(self, start_server: StartServer) -> None:
        server = start_server(["--atlas-log-format", "json", "--atlas-slow-request-ms", "0.001"])
        complete(server, "slow")
        server.wait_until(
            lambda: any(
                one["level"] == "warn" and one.get("request", {}).get("request_id") == "slow"
                for one in records(server)
            ),
            timeout=10.0,
        )


# Three threads fill the log of llama-common, and it is flushed again and again.
FLUSHING = """
import ctypes, sys, threading

common = ctypes.CDLL(sys.argv[1])
common._Z15common_log_mainv.restype = ctypes.c_void_p
log = ctypes.c_void_p(common._Z15common_log_mainv())
add = common._Z14common_log_addP10common_log14ggml_log_levelPKcz
flush = common._Z16common_log_flushP10common_log

def chatter():
    while True:
        add(log, 1, b"chatter\\n")

for _ in range(3):
    threading.Thread(target=chatter, daemon=True).start()
for _ in range(10_000):
    flush(log)
print("flushed", file=sys.stderr)
"""


def test_a_full_log_can_be_flushed() -> None:
    library = BINARY.with_name("libllama-common.so")
    ended = subprocess.run(
        [sys.executable, "-c", FLUSHING, library],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60.0,
        check=False,
    )
    assert ended.stderr.splitlines()[-1] == "flushed"
