"""Plugins over HTTP: what routes get and answer, streams, failures, many requests at once."""

import re
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server.conftest import StartServer
from tests.server.harness import REPOSITORY, Server, stream_events, write_plugin

HELLO = REPOSITORY / "examples/plugins/hello.py"
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
MEBIBYTE = 1024 * 1024
CONCURRENT = 32

# Routes that do what the tests ask for. Events have names, so that tests do not meet.
EXERCISE = f"""
import threading
import time
from collections import defaultdict

from atlas_plugin import NotFoundError, Response, StreamResponse, ValidationError, hookimpl

released = defaultdict(threading.Event)
closed = defaultdict(threading.Event)
barrier = threading.Barrier({CONCURRENT})


def pieces(name):
    try:
        yield "data: {{}}\\n\\n"
        released[name].wait(60)
        yield b"data: [1]\\n\\n"
    finally:
        closed[name].set()


def endless(name):
    try:
        while True:
            yield "x" * 1000
            time.sleep(0.01)
    finally:
        closed[name].set()


def failing():
    yield "first"
    raise RuntimeError("the stream broke")


def echo(request):
    return {{
        "method": request.method,
        "path": request.path,
        "query": dict(request.query),
        "name": request.path_params["name"],
        "header": request.headers.get("X-Probe"),
        "body": request.body.decode(),
    }}


def spin(request):
    while not released[request.path_params["name"]].is_set():
        pass
    return {{}}


def fail(request):
    raise RuntimeError("a secret")


def missing(request):
    raise NotFoundError("no such thing")


def invalid(request):
    raise ValidationError("value must be smaller", "size")


def meet(request):
    return {{"first": barrier.wait(60) == 0}}


RESPONSES = {{
    "text": lambda: "grün",
    "bytes": lambda: bytes(range(256)),
    "list": lambda: [1, 2],
    "nothing": lambda: None,
    "custom": lambda: Response(201, b"\\x00", "image/x-probe", {{"X-Probe": "1"}}),
    "own-404": lambda: Response(status=404, body="not here", content_type="text/html"),
    "own-400": lambda: Response(status=400, body={{"error": {{"message": 7, "type": "mine"}}}}),
    "openai-503": lambda: Response(status=503, body={{"error": {{"message": "m", "type": "t"}}}}),
    "empty-500": lambda: Response(status=500),
    "stream-503": lambda: StreamResponse(["one ", "two"], status=503, content_type="text/plain"),
    "stream-fails": lambda: StreamResponse(failing()),
    "large": lambda: b"x" * {8 * MEBIBYTE},
    "wrong-type": lambda: 7,
}}


@hookimpl
def register_routes(routes):
    for method in ("GET", "POST", "DELETE"):
        routes.add(method, "/v1/atlas/x/echo/{{name}}", echo)
    routes.get("/v1/atlas/x/answer/{{name}}")(lambda request: RESPONSES[request.path_params["name"]]())
    routes.post("/v1/atlas/x/size")(lambda request: {{"size": len(request.body)}})
    routes.post("/v1/atlas/x/back")(lambda request: request.body)
    routes.get("/v1/atlas/x/stream/{{name}}")(lambda r: StreamResponse(pieces(r.path_params["name"])))
    routes.get("/v1/atlas/x/endless/{{name}}")(lambda r: StreamResponse(endless(r.path_params["name"])))
    routes.post("/v1/atlas/x/release/{{name}}")(lambda r: released[r.path_params["name"]].set())
    routes.get("/v1/atlas/x/closed/{{name}}")(lambda r: {{"closed": closed[r.path_params["name"]].is_set()}})
    routes.get("/v1/atlas/x/spin/{{name}}")(spin)
    routes.get("/v1/atlas/x/fail")(fail)
    routes.get("/v1/atlas/x/missing")(missing)
    routes.get("/v1/atlas/x/invalid")(invalid)
    routes.get("/v1/atlas/x/meet")(meet)
"""

OUTSIDE = """
from atlas_plugin import hookimpl

@hookimpl
def register_routes(routes):
    routes.get("/v1/chat/completions")(lambda request: {})
"""


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the routes of EXERCISE."""
    directory = tmp_path_factory.mktemp("probe")
    plugin = write_plugin(directory, EXERCISE, "exercise")
    # threads beyond these are made when needed, and one that is about to be busy may count as free
    threads = ["--threads-http", f"{CONCURRENT + 4}"]
    arguments: list[str | Path] = ["--atlas-plugin", plugin, "--atlas-require-python", *threads]
    with Server(arguments, directory=directory) as running:
        yield running


def error_of(response: httpx.Response, status: int, kind: str) -> str:
    """The message of an error in the ATLAS format."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert list(error) == ["code", "message", "type", "timestamp"]
    assert (error["code"], error["type"], type(error["timestamp"])) == (status, kind, int)
    message: str = error["message"]
    return message


class TestLoading:
    def test_example_of_the_readme(self, start_server: StartServer) -> None:
        server = start_server(["--atlas-plugin", HELLO])
        answer = server.get("/v1/atlas/x/hello?name=Ada")
        assert answer.text == '{"hello":"Ada"}'
        assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
        assert server.get("/v1/atlas/x/hello").json() == {"hello": "world"}

    def test_directory_and_names_turned_off(self, start_server: StartServer, tmp_path: Path) -> None:
        directory = tmp_path / "plugins"
        directory.mkdir()
        shutil.copy(HELLO, directory / "a.py")
        write_plugin(directory, "raise RuntimeError('never loaded')", "_private")
        write_plugin(directory, "raise RuntimeError('never loaded')", "b")
        write_plugin(directory, OUTSIDE, "outside")
        server = start_server(["--atlas-plugins-dir", directory, "--atlas-plugin", "no:b,no:memory"])
        assert server.get("/v1/atlas/x/hello").json() == {"hello": "world"}
        error_of(server.post("/v1/atlas/memory/list"), 404, "not_found")
        plugins = {info["name"]: info for info in server.get("/v1/atlas/plugins").json()["data"]["plugins"]}
        assert {name: info["state"] for name, info in plugins.items()} == {
            "status": "active",
            "plugins": "active",
            "config": "active",
            "debug": "active",
            "tracing": "active",
            "memory": "disabled",
            "conversations": "active",
            "background": "active",
            "responses": "active",
            "stored_completions": "active",
            "eviction": "active",
            "kv_events": "active",
            "metrics": "active",
            "requests": "active",
            "dashboard": "active",
            "openapi": "active",
            "a": "active",
            "b": "disabled",
            "outside": "failed",
        }
        assert plugins["a"]["routes"] == ["GET /v1/atlas/x/hello"]
        assert "the path must start with /v1/atlas/x/" in plugins["outside"]["error"]
        status = server.get("/v1/atlas/status").json()
        assert status["status"] == "degraded"
        assert "plugin 'outside' failed" in status["problems"][0]
        assert server.post("/v1/chat/completions", {"messages": []}).status_code != 404


class TestRequests:
    @pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
    def test_all_parts_arrive(self, probe: Server, method: str) -> None:
        body = "grün" if method == "POST" else ""
        answer = probe.client.request(
            method,
            "/v1/atlas/x/echo/ada%20l%C3%B6?a=1&b=x%26y+z&a=2&c=&d=%C3%A4",
            headers={"x-probe": "one, two"},
            content=body.encode(),
        )
        assert answer.json() == {
            "method": method,
            "path": "/v1/atlas/x/echo/ada lö",
            "query": {"a": "2", "b": "x&y z", "c": "", "d": "ä"},
            "name": "ada lö",
            "header": "one, two",
            "body": body,
        }

    @pytest.mark.parametrize("path", ["echo/%ff", "echo/a?b=%ff", "echo/%00", "echo/a%0d%0ab"])
    def test_odd_bytes_are_answered(self, probe: Server, path: str) -> None:
        assert probe.get(f"/v1/atlas/x/{path}", headers={"X-Probe": b"\xff"}).status_code < 500

    def test_large_bodies(self, probe: Server) -> None:
        content = bytes(range(256)) * (8 * MEBIBYTE // 256)
        assert probe.client.post("/v1/atlas/x/size", content=content).json() == {"size": len(content)}
        assert probe.client.post("/v1/atlas/x/back", content=content).content == content
        assert probe.get("/v1/atlas/x/answer/large").content == b"x" * 8 * MEBIBYTE

    def test_head_answers_like_get_without_the_body(self, probe: Server) -> None:
        whole = probe.get("/v1/atlas/x/answer/bytes")
        head = probe.client.head("/v1/atlas/x/answer/bytes")
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["Content-Length"] == whole.headers["Content-Length"] == "256"

    def test_many_at_once(self, probe: Server) -> None:
        with ThreadPoolExecutor(CONCURRENT) as pool:
            answers = list(pool.map(lambda _: probe.get("/v1/atlas/x/meet").json(), range(CONCURRENT)))
        assert sum(answer["first"] for answer in answers) == 1


class TestResponses:
    @pytest.mark.parametrize(
        ("name", "status", "media", "content"),
        [
            ("text", 200, "text/plain; charset=utf-8", "grün".encode()),
            ("bytes", 200, "application/octet-stream", bytes(range(256))),
            ("list", 200, "application/json; charset=utf-8", b"[1,2]"),
            ("custom", 201, "image/x-probe", b"\0"),
            ("own-404", 404, "text/html", b"not here"),
            ("own-400", 400, "application/json; charset=utf-8", b'{"error":{"message":7,"type":"mine"}}'),
            ("openai-503", 503, "application/json; charset=utf-8", b'{"error":{"message":"m","type":"t"}}'),
            ("stream-503", 503, "text/plain", b"one two"),
        ],
    )
    def test_arrive_unchanged(
        self, probe: Server, name: str, status: int, media: str, content: bytes
    ) -> None:
        answer = probe.get(f"/v1/atlas/x/answer/{name}")
        assert (answer.status_code, answer.headers["Content-Type"], answer.content) == (
            status,
            media,
            content,
        )

    @pytest.mark.parametrize(("name", "status"), [("nothing", 204), ("empty-500", 500)])
    def test_without_a_body(self, probe: Server, name: str, status: int) -> None:
        answer = probe.get(f"/v1/atlas/x/answer/{name}")
        assert (answer.status_code, answer.content) == (status, b"")

    def test_headers(self, probe: Server) -> None:
        assert probe.get("/v1/atlas/x/answer/custom").headers["X-Probe"] == "1"


class TestErrors:
    def test_of_atlas(self, probe: Server) -> None:
        assert error_of(probe.get("/v1/atlas/x/missing"), 404, "not_found") == "no such thing"
        message = error_of(probe.get("/v1/atlas/x/invalid"), 400, "validation_error")
        assert message == "Validation error in field 'size': value must be smaller"

    def test_exception_is_logged_and_not_shown(self, probe: Server) -> None:
        message = error_of(probe.get("/v1/atlas/x/fail"), 500, "server_error")
        found = re.fullmatch(r"Internal server error \(reference ([0-9a-f]{8})\)", message)
        assert found
        probe.wait_until(lambda: f"GET /v1/atlas/x/fail failed (reference {found[1]})" in probe.log)
        probe.wait_until(lambda: "RuntimeError: a secret" in probe.log)

    def test_wrong_result(self, probe: Server) -> None:
        error_of(probe.get("/v1/atlas/x/answer/wrong-type"), 500, "server_error")
        problem = "TypeError: the handler returned int; return dict, list, str"
        probe.wait_until(lambda: problem in probe.log)

    def test_wrong_method(self, probe: Server) -> None:
        answer = probe.post("/v1/atlas/x/missing")
        message = error_of(answer, 405, "validation_error")
        assert message == "/v1/atlas/x/missing does not answer POST; it answers GET, HEAD"
        assert answer.headers["Allow"] == "GET, HEAD"

    def test_no_route(self, probe: Server) -> None:
        message = error_of(probe.get("/v1/atlas/x/nothing"), 404, "not_found")
        assert message.startswith("no route GET /v1/atlas/x/nothing; GET /v1/atlas/openapi.json lists")

    @pytest.mark.parametrize("method", ["PUT", "PATCH"])
    def test_method_that_no_route_can_have(self, probe: Server, method: str) -> None:
        answer = probe.client.request(method, "/v1/atlas/status")
        assert error_of(answer, 404, "not_found") == "there is no such route for this method"

    def test_routes_of_the_readme_are_there(self, server: Server) -> None:
        routes = re.findall(r"^\| `(GET|POST|DELETE) (/v1/atlas/\S+)` \|", README, re.M)
        assert routes
        for method, path in routes:
            # Only the head: the stream of the metrics has no end.
            with server.client.stream(method, path.format(name="status")) as response:
                assert response.status_code != 404, path


def read_until(stream: Iterator[str], text: str) -> str:
    """What arrives up to and including `text`."""
    arrived = ""
    while text not in arrived:
        arrived += next(stream)
    return arrived


class TestStreams:
    def test_pieces_arrive_as_they_are_made(self, probe: Server) -> None:
        with probe.client.stream("GET", "/v1/atlas/x/stream/pieces") as response:
            assert response.headers["Content-Type"] == "text/event-stream"
            text = response.iter_text()
            # The second piece waits for the release, which is sent only once the first one is here.
            arrived = read_until(text, "data: {}\n\n")
            probe.post("/v1/atlas/x/release/pieces")
            arrived += "".join(text)
        assert stream_events(arrived) == [{}, [1]]
        probe.wait_until(lambda: self.is_closed(probe, "pieces"))

    def test_generator_is_closed_when_the_client_leaves(self, probe: Server) -> None:
        with probe.client.stream("GET", "/v1/atlas/x/endless/left") as response:
            pieces = response.iter_raw()
            next(pieces)  # whose end would close the connection
            assert not self.is_closed(probe, "left")
        probe.wait_until(lambda: self.is_closed(probe, "left"))

    def test_exception_ends_the_answer(self, probe: Server) -> None:
        assert probe.get("/v1/atlas/x/answer/stream-fails").text == "first"
        probe.wait_until(lambda: "RuntimeError: the stream broke" in probe.log)
        assert probe.answers("/v1/atlas/status")

    @staticmethod
    def is_closed(probe: Server, name: str) -> bool:
        closed: bool = probe.get(f"/v1/atlas/x/closed/{name}").json()["closed"]
        return closed


def test_busy_python_does_not_stop_generation(probe: Server) -> None:
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(probe.get("/v1/atlas/x/spin/busy").json()))
    thread.start()
    try:
        body = {"prompt": "a", "n_predict": 64, "ignore_eos": True, "stream": True, "atlas": {}}
        events = stream_events(probe.post("/completion", body).text)
        assert events[-1]["tokens_predicted"] == 64
        assert not answers
    finally:
        probe.post("/v1/atlas/x/release/busy")
        thread.join()
    assert answers == [{}]
