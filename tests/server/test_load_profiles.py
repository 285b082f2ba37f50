"""Each load profile for a few seconds against the real server, and what it makes of wrong answers."""

import csv
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.server.conftest import StartServer
from tests.server.conversations import ONE_THREAD, memory_options, memory_status
from tests.server.harness import REPOSITORY, STOCK_BINARY, Server, free_port

STREAMED = {
    "streaming": ["stream"],
    "shared-prompt": ["shared prompt"],
    "sessions": ["session, first turn", "session, later turns"],
}
ASKED = {
    "chat": ["chat"],
    "memory": [f"/v1/atlas/memory/{name}" for name in ("save", "load", "list", "delete")],
    "metrics": ["/v1/atlas/status", "/v1/atlas/metrics/stream, 3 samples"],
    "bad-requests": ["bad: half a body", "bad: layers out of range"],
    **STREAMED,
}
WEIGHTS = {
    "chat": 3,
    "streaming": 3,
    "shared-prompt": 2,
    "sessions": 4,
    "memory": 1,
    "metrics": 1,
    "bad-requests": 1,
}
# A conversation has to come to its second turn on busy machines too.
DURATIONS = {"sessions": "5s"}
ONLY_ATLAS = ("memory", "metrics")
REPORTS = ["report.html", "statistics_stats.csv", "statistics_failures.csv", "summary.json"]


class Run:
    """A run of load/run.py that has ended."""

    def __init__(self, reports: Path, *arguments: str) -> None:
        command: list[str | Path] = [
            sys.executable,
            REPOSITORY / "load/run.py",
            "--reports",
            reports,
            *arguments,
        ]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
        self.reports = reports
        self.status = ended.returncode
        self.output = ended.stdout + ended.stderr

    @property
    def summary(self) -> Any:
        """The summary as JSON."""
        return json.loads((self.reports / "summary.json").read_text(encoding="utf-8"))

    def entry(self, name: str, kind: str = "POST") -> Any:
        """The summary's entry of that name and type."""
        found = [e for e in self.summary["entries"] if (e["type"], e["name"]) == (kind, name)]
        assert len(found) == 1, self.output
        return found[0]


def run(url: str, reports: Path, profile: str, *arguments: str, users: int = 3, duration: str = "3s") -> Run:
    """That profile's users against a server, without much thinking."""
    options = ["--url", url, "--profile", profile, "--users", str(users), "--duration", duration]
    return Run(reports, *options, "--think-time", "0.02", *arguments)


@pytest.fixture(scope="module")
def remembering(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that all profiles are used against."""
    directory = tmp_path_factory.mktemp("load")
    with Server(memory_options(directory), directory=directory) as running:
        yield running


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Untouched upstream, computing with one thread as the other."""
    with Server(ONE_THREAD, directory=tmp_path_factory.mktemp("stock"), binary=STOCK_BINARY) as running:
        yield running


def check_success(ended: Run, profile: str, server: str) -> None:
    """Nothing failed, everything was asked and measured, and the reports are there."""
    assert ended.status == 0, ended.output
    summary = ended.summary
    assert (summary["profile"], summary["server"], summary["failures"]) == (profile, server, 0)
    assert summary["requests"] > 0
    assert summary["requests"] == sum(
        e["count"] for e in summary["entries"] if e["type"] in ("GET", "POST")
    ), "only HTTP requests count in Locust's totals"
    for name in STREAMED.get(profile, []):
        for kind in ("TTFT", "ITL"):
            assert ended.entry(name, kind)["count"] > 0
            assert 0 < ended.entry(name, kind)["p50"] <= ended.entry(name, kind)["p99"]
        assert ended.entry(name)["count"] == ended.entry(name, "TTFT")["count"]
        assert ended.entry(name, "TTFT")["p50"] < ended.entry(name)["p99"]
    for file in REPORTS:
        assert (ended.reports / file).stat().st_size > 0


class TestProfiles:
    @pytest.mark.parametrize("profile", ASKED)
    def test_atlas(self, remembering: Server, tmp_path: Path, profile: str) -> None:
        ended = run(remembering.url, tmp_path / "reports", profile, duration=DURATIONS.get(profile, "3s"))
        check_success(ended, profile, "ATLAS")
        names = {entry["name"] for entry in ended.summary["entries"]}
        assert set(ASKED[profile]) <= names

    def test_sessions_come_back(self, start_server: StartServer, tmp_path: Path) -> None:
        server = start_server(memory_options(tmp_path))
        ended = run(server.url, tmp_path / "reports", "sessions", users=4, duration="5s")
        check_success(ended, "sessions", "ATLAS")
        results = memory_status(server)["results"]
        assert results["restored"] > 0, results

    def test_stock(self, stock: Server, tmp_path: Path) -> None:
        """The profile that is most unlike on stock; the mix has the others."""
        ended = run(stock.url, tmp_path / "reports", "sessions", duration=DURATIONS["sessions"])
        check_success(ended, "sessions", "stock")

    @pytest.mark.parametrize("profile", ONLY_ATLAS)
    def test_only_atlas(self, stock: Server, tmp_path: Path, profile: str) -> None:
        ended = run(stock.url, tmp_path, profile)
        assert ended.status == 2
        assert f"the profile '{profile}' cannot run: it needs ATLAS, and the server is stock" in ended.output

    @pytest.mark.parametrize("server", ["ATLAS", "stock"])
    def test_mix(self, remembering: Server, stock: Server, tmp_path: Path, server: str) -> None:
        weights = {**WEIGHTS, **(dict.fromkeys(ONLY_ATLAS, 0) if server == "stock" else {})}
        url = (stock if server == "stock" else remembering).url
        ended = run(url, tmp_path, "mix", users=sum(weights.values()))
        check_success(ended, "mix", server)
        assert ended.summary["users_by_profile"] == weights
        for profile in ONLY_ATLAS:
            left_out = f"without the users of '{profile}': it needs ATLAS" in ended.output
            assert left_out == (server == "stock")

    def test_tokens_stand_in_csv_and_html(self, remembering: Server, tmp_path: Path) -> None:
        ended = run(remembering.url, tmp_path, "streaming")
        with (tmp_path / "statistics_stats.csv").open(encoding="utf-8", newline="") as file:
            rows = {(row["Type"], row["Name"]) for row in csv.DictReader(file)}
        assert {("POST", "stream"), ("TTFT", "stream"), ("ITL", "stream")} <= rows
        report = (tmp_path / "report.html").read_text(encoding="utf-8")
        assert "TTFT" in report and "ITL" in report
        assert ended.entry("stream", "ITL")["count"] > ended.entry("stream", "TTFT")["count"]

    def test_key(self, start_server: StartServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        server = start_server(ONE_THREAD, api_key="secret")
        refused = run(server.url, tmp_path, "chat")
        assert refused.status == 2
        assert "answers 401 to GET /v1/atlas/status" in refused.output
        monkeypatch.setenv("ATLAS_LOAD_API_KEY", "secret")
        check_success(run(server.url, tmp_path, "chat"), "chat", "ATLAS")

    def test_refusals_are_followed_and_counted_apart(self, start_server: StartServer, tmp_path: Path) -> None:
        server = start_server([*memory_options(tmp_path), "--atlas-max-concurrent", "1"])
        ended = run(server.url, tmp_path / "reports", "sessions", users=4)
        assert ended.status == 0, ended.output
        assert ended.summary["refusals"]["429"] > 0
        assert ended.summary["failures"] == 0
        assert ended.entry("session, first turn", "429")["count"] > 0


class Recorder(BaseHTTPRequestHandler):
    """Answers as ATLAS would, or wrongly; keeps the bodies it was sent."""

    protocol_version = "HTTP/1.0"
    bodies: list[Any]
    status_code = 200
    chunks: list[Any]

    def do_GET(self) -> None:
        self._answer(200, {"data": {"memory_persistence": True}})

    def do_POST(self) -> None:
        self.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        if self.status_code != 200:
            error = {"code": self.status_code, "message": "", "type": "rate_limit_error", "timestamp": 1}
            self._answer(self.status_code, {"error": error})
            return
        self._begin(200, "text/event-stream")
        for chunk in self.chunks:
            self.wfile.write(f"data: {chunk if isinstance(chunk, str) else json.dumps(chunk)}\n\n".encode())

    def _answer(self, status: int, document: Any) -> None:
        self._begin(status, "application/json")
        self.wfile.write(json.dumps(document).encode())

    def _begin(self, status: int, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing."""


def chunk(text: str, **fields: Any) -> dict[str, Any]:
    """A piece of a streamed answer."""
    return {"choices": [{"delta": {"content": text}}], **fields}


def atlas(reused: int, reason: str | None) -> dict[str, Any]:
    """The last piece of an answer that has the `atlas` object."""
    return chunk("", atlas={"reused_tokens": reused, "reason": reason, "degraded": False})


@contextmanager
def answering(*chunks: Any, status: int = 200) -> Iterator[tuple[str, list[Any]]]:
    """A server that gives each completion that answer; its URL, and what it was sent."""
    bodies: list[Any] = []
    attributes = {"bodies": bodies, "chunks": list(chunks), "status_code": status}
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Recorder,), attributes)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", bodies
        server.shutdown()


class TestWrongAnswers:
    @pytest.mark.parametrize(
        ("profile", "chunks", "error"),
        [
            ("streaming", [chunk("a"), chunk("b")], "the stream ended before it was done"),
            ("streaming", [{"error": {"type": "server_error"}}, "[DONE]"], "error: server_error"),
            ("streaming", [{"choices": 7}, "[DONE]"], "TypeError"),
            ("sessions", [chunk("a"), "[DONE]"], "the answer has no atlas object"),
            (
                "sessions",
                [chunk("a"), atlas(7, "no_match"), "[DONE]"],
                "no more tokens reused than the turn before: no_match",
            ),
            ("bad-requests", [], "status 200, expected 4"),
        ],
    )
    def test_fail(self, tmp_path: Path, profile: str, chunks: list[Any], error: str) -> None:
        with answering(*chunks) as (url, _):
            ended = run(url, tmp_path, profile, users=1, duration="1s")
        assert ended.status == 1, ended.output
        assert ended.summary["failures"] > 0
        assert any(error in failure["error"] for failure in ended.summary["errors"])
        assert "FAILED" in ended.output

    def test_what_the_server_chose_is_no_failure(self, tmp_path: Path) -> None:
        with answering(chunk("a"), atlas(0, "below_break_even"), "[DONE]") as (url, _):
            ended = run(url, tmp_path, "sessions", users=1, duration="1s")
        assert ended.status == 0, ended.output
        assert ended.entry("session, later turns")["count"] > 0

    def test_429_without_retry_after(self, tmp_path: Path) -> None:
        with answering(status=429) as (url, _):
            ended = run(url, tmp_path, "streaming", users=1, duration="1s")
        assert ended.status == 1, ended.output
        assert ended.summary["refusals"]["429"] == 0
        assert "status 429, expected 200" in ended.summary["errors"][0]["error"]


class TestSeed:
    def test_decides_the_prompts_of_each_user(self, tmp_path: Path) -> None:
        def sent(seed: str) -> list[Any]:
            with answering(chunk("a"), "[DONE]") as (url, bodies):
                run(url, tmp_path, "streaming", "--seed", seed, users=1, duration="2s")
            return bodies[:10]

        first = sent("1")
        assert len(first) == 10
        assert sent("1") == first
        assert sent("2") != first


class TestCommandLine:
    def test_unknown_profile(self, remembering: Server, tmp_path: Path) -> None:
        ended = run(remembering.url, tmp_path, "chats")
        assert ended.status == 2
        assert "no profile 'chats'; there are chat, streaming, " in ended.output

    def test_no_server(self, tmp_path: Path) -> None:
        url = f"http://127.0.0.1:{free_port()}"
        ended = run(url, tmp_path, "chat")
        assert ended.status == 2
        assert f"no answer from {url}" in ended.output

    def test_url_and_stock(self, tmp_path: Path) -> None:
        ended = run("http://127.0.0.1:1", tmp_path, "chat", "--stock")
        assert ended.status == 2
        assert "leave --url out" in ended.output

    @pytest.mark.parametrize(("stock", "name"), [(False, "ATLAS"), (True, "stock")])
    def test_starts_a_server(self, tmp_path: Path, stock: bool, name: str) -> None:
        options = ["--profile", "chat", "--users", "2", "--duration", "2s", "--think-time", "0.02"]
        ended = Run(tmp_path, *options, *(["--stock"] if stock else []))
        check_success(ended, "chat", name)

    def test_server_that_does_not_start(self, tmp_path: Path) -> None:
        ended = Run(tmp_path, "--duration", "1s", "--", "--no-such-option")
        assert ended.status == 2
        assert "llama-server does not start: " in ended.output
        assert "--no-such-option" in ended.output
