"""Routes, and what handlers are given and may return."""

from collections.abc import Callable
from typing import Any

import pytest

from atlas_plugin import (
    MethodNotAllowed,
    NotFoundError,
    PluginError,
    Request,
    Response,
    Routes,
    StreamResponse,
    ValidationError,
)
from atlas_plugin.http import Headers, parse_query, to_response
from atlas_plugin.routing import Router


def answer(request: Request) -> str:
    return "answer"


def router(*routes: str, plugin: str = "mine") -> Router:
    made = Router()
    made.include(collect(*routes, plugin=plugin))
    return made


def collect(*routes: str, plugin: str = "mine") -> Routes:
    collected = Routes(plugin, builtin=True)
    for route in routes:
        method, path = route.split(" ")
        collected.add(method, path, answer)
    return collected


class TestMatching:
    def test_parameters(self) -> None:
        routes = router("GET /v1/atlas/x/{user}/files/{rest:path}")
        route, parameters = routes.match("GET", "/v1/atlas/x/ada lovelace/files/a/b\n.txt")
        assert parameters == {"user": "ada lovelace", "rest": "a/b\n.txt"}
        assert str(route) == "GET /v1/atlas/x/{user}/files/{rest:path}"

    @pytest.mark.parametrize(
        "path",
        [
            "/v1/atlas/x/a/",
            "/v1/atlas/x",
            "/v1/atlas/x/",
            "/v1/atlas/X/a",
            "/v1/atlas/x/a/b",
            "/v1/atlas/x/a\n/",
        ],
    )
    def test_paths_match_exactly(self, path: str) -> None:
        with pytest.raises(NotFoundError, match="no route GET"):
            router("GET /v1/atlas/x/{name}").match("GET", path)

    def test_pattern_characters_are_literal(self) -> None:
        routes = router("GET /v1/atlas/x/a.b")
        with pytest.raises(NotFoundError):
            routes.match("GET", "/v1/atlas/x/a-b")

    def test_the_most_literal_pattern_wins(self) -> None:
        routes = router(
            "GET /v1/atlas/x/{rest:path}",
            "GET /v1/atlas/x/{a}/{b}",
            "GET /v1/atlas/x/a/{b}",
            "GET /v1/atlas/x/a/b",
        )
        found = [
            routes.match("GET", f"/v1/atlas/x/{path}")[0].path.removeprefix("/v1/atlas/x/")
            for path in ("a/b", "a/c", "c/b", "c/b/d")
        ]
        assert found == ["a/b", "a/{b}", "{a}/{b}", "{rest:path}"]

    def test_a_method_that_only_the_wider_pattern_has(self) -> None:
        routes = router("GET /v1/atlas/x/a", "POST /v1/atlas/x/{name}")
        assert routes.match("POST", "/v1/atlas/x/a")[1] == {"name": "a"}

    def test_wrong_method_lists_the_right_ones(self) -> None:
        routes = router("GET /v1/atlas/x/a", "DELETE /v1/atlas/x/a")
        with pytest.raises(MethodNotAllowed) as caught:
            routes.match("POST", "/v1/atlas/x/a")
        assert caught.value.headers == {"Allow": "DELETE, GET, HEAD"}
        assert caught.value.to_body()["error"]["code"] == 405
        assert caught.value.to_body()["error"]["type"] == "validation_error"


class TestRegistration:
    def test_a_taken_route_names_both_plugins(self) -> None:
        routes = router("GET /v1/atlas/x/{a}", plugin="first")
        with pytest.raises(PluginError, match=r"'second' and plugin 'first'") as caught:
            routes.include(collect("GET /v1/atlas/x/free", "GET /v1/atlas/x/{b}", plugin="second"))
        assert caught.value.plugin == "second"
        with pytest.raises(NotFoundError):
            routes.match("POST", "/v1/atlas/x/none/at/all")
        assert routes.match("GET", "/v1/atlas/x/free")[0].plugin == "first", (
            "all of a plugin's routes or none"
        )

    def test_a_route_taken_twice_by_one_plugin(self) -> None:
        with pytest.raises(PluginError):
            router("GET /v1/atlas/x/a", "GET /v1/atlas/x/a")

    @pytest.mark.parametrize(
        ("method", "path", "reason"),
        [
            ("PUT", "/v1/atlas/x/a", "DELETE, GET, POST"),
            ("get", "/v1/atlas/x/a", "DELETE, GET, POST"),
            ("GET", "/v1/atlas/status", "/v1/atlas/x/"),
            ("GET", "/v1/models", "/v1/atlas/x/"),
            ("GET", "/v1/atlas/x/a{b}", "neither a literal nor"),
            ("GET", "/v1/atlas/x/{}", "neither a literal nor"),
            ("GET", "/v1/atlas/x/{a}/{a}", "twice"),
            ("GET", "/v1/atlas/x/{a:path}/b", "nothing can follow"),
        ],
    )
    def test_refused(self, method: str, path: str, reason: str) -> None:
        with pytest.raises(PluginError, match=reason) as caught:
            Routes("mine").add(method, path, answer)
        assert path in str(caught.value)

    def test_async_handlers_are_refused(self) -> None:
        async def handler(request: Request) -> str:
            return ""

        with pytest.raises(PluginError, match="async"):
            Routes("mine").get("/v1/atlas/x/a")(handler)  # type: ignore[type-var]

    def test_decorators_leave_the_function(self) -> None:
        routes = Routes("mine")
        assert routes.get("/v1/atlas/x/a")(answer) is answer
        assert routes.post("/v1/atlas/x/a")(answer) is answer
        assert routes.delete("/v1/atlas/x/a")(answer) is answer
        assert [str(route) for route in routes.collected] == [
            "GET /v1/atlas/x/a",
            "POST /v1/atlas/x/a",
            "DELETE /v1/atlas/x/a",
        ]


class TestRequest:
    def test_query(self) -> None:
        assert parse_query("a=1&a=2&b=&c=%C3%BC+x&d=%ff") == {"a": "2", "b": "", "c": "ü x", "d": "\ufffd"}

    def test_headers_compare_without_case(self) -> None:
        headers = Headers([("x-a", "1"), ("Accept", "text/html"), ("accept", "*/*")])
        assert headers["X-A"] == "1"
        assert headers["ACCEPT"] == "text/html, */*"
        assert "x-b" not in headers
        assert headers.get("x-b") is None

    def test_secrets_stay_out_of_the_repr(self) -> None:
        request = Request("GET", "/", headers=Headers([("authorization", "Bearer secret")]), body=b"secret")
        assert "secret" not in repr(request)

    def test_json_error_names_the_body_and_the_position(self) -> None:
        with pytest.raises(ValidationError, match=r"in field 'body': not valid JSON: .*byte 6") as caught:
            Request("POST", "/", body=b'{"a": x}').json()
        assert caught.value.field == "body"
        assert caught.value.to_body()["error"]["code"] == 400

    def test_json_object(self) -> None:
        assert Request("POST", "/", body=b'{"a": 1}').json_object() == {"a": 1}
        with pytest.raises(ValidationError, match="must be a JSON object"):
            Request("POST", "/", body=b"[]").json_object()


class TestResponse:
    @pytest.mark.parametrize(
        ("result", "body", "content_type"),
        [
            ({"a": 1}, b'{"a":1}', "application/json; charset=utf-8"),
            ([1], b"[1]", "application/json; charset=utf-8"),
            ("ü", b"\xc3\xbc", "text/plain; charset=utf-8"),
            (b"\x00", b"\x00", "application/octet-stream"),
            (Response(201, 5, "text/csv"), b"5", "text/csv"),
        ],
    )
    def test_what_handlers_return(self, result: Any, body: bytes, content_type: str) -> None:
        response = to_response(result)
        assert isinstance(response, Response)
        assert (response.body, response.content_type) == (body, content_type)

    def test_nothing_is_204(self) -> None:
        response = to_response(None)
        assert isinstance(response, Response)
        assert (response.status, response.body, response.content_type) == (204, b"", None)

    def test_anything_else_is_refused(self) -> None:
        with pytest.raises(TypeError, match="the handler returned int; return dict"):
            to_response(5)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("make", "reason"),
        [
            (lambda: Response(headers={"X-A": "b\r\nSet-Cookie: c"}), "control character"),
            (lambda: Response(headers={"X-A": "b\x00"}), "control character"),
            (lambda: Response(headers={"X A": "b"}), "not a header name"),
            (lambda: Response(headers={"X-A:": "b"}), "not a header name"),
            (lambda: Response(content_type="a\nb"), "Content-Type"),
            (lambda: Response(headers={"content-type": "a"}), "use content_type"),
            (lambda: Response(headers={"Content-Length": "1"}), "the server sets it"),
            (lambda: StreamResponse([], headers={"Transfer-Encoding": "chunked"}), "the server sets it"),
            (lambda: StreamResponse([], status=100), "200 to 599"),
            (lambda: Response(status=204, body="a"), "cannot have a body"),
        ],
    )
    def test_answers_that_would_break_http(self, make: Callable[[], object], reason: str) -> None:
        with pytest.raises(ValueError, match=reason):
            make()

    @pytest.mark.parametrize("chunks", ["text", b"bytes", 5])
    def test_streams_of_no_pieces(self, chunks: Any) -> None:
        with pytest.raises(TypeError, match="not an iterable of bytes or str"):
            StreamResponse(chunks)
