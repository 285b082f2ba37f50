"""What the page of another site can do with a server that remembers: nothing (docs/security.md)."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server.completions import BODIES
from tests.server.conftest import StartServer
from tests.server.conversations import memory_options
from tests.server.harness import MODEL, Server
from tests.server.keys import ADA, BEN, with_key
from tests.server.upstream_routes import upstream_routes

FOREIGN = "https://elsewhere.example"
MEMORY = "/v1/atlas/memory"
NAME = "kept"

# What a page can send without asking first, and what a rebound page sends.
FOREIGN_PAGES = {
    "origin": {"Origin": FOREIGN, "Content-Type": "text/plain"},
    "sandbox": {"Origin": "null"},
    "fetch": {"Origin": FOREIGN, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"},
    "image": {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
    "frame": {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
}
REBOUND = {"Host": "elsewhere.example:8080", "Origin": "http://elsewhere.example:8080"}

STOCK_ROUTES = [
    *((method, path, BODIES.get(path)) for method, path in upstream_routes()),
    ("POST", "/slots/0?action=erase", {}),
    ("POST", "/tokenize", {"content": "a"}),
    ("GET", "/v1/stream?conv_id=kept", None),
    ("DELETE", "/v1/stream?conv_id=kept", None),
    ("POST", "/v1/streams/lookup", {"conversation_ids": [NAME]}),
    ("POST", "/v1/chat/completions", {**BODIES["/v1/chat/completions"], "atlas": {"session_id": NAME}}),
]


@pytest.fixture(scope="module")
def remembering(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("pages")
    with Server(memory_options(directory), directory=directory) as running:
        yield running


def our_routes(server: Server) -> list[tuple[str, str, Any]]:
    """All of /v1/atlas, and one that there is not."""
    paths = server.get("/v1/atlas/openapi.json").json()["paths"]
    return [
        ("GET", "/v1/atlas/none", None),
        *(
            (method.upper(), path, {"context_id": NAME, "settings": {}} if method == "post" else None)
            for path, methods in paths.items()
            for method in methods
            if path.startswith("/v1/atlas/")
        ),
    ]


def send(server: Server, method: str, path: str, body: Any, headers: dict[str, str]) -> httpx.Response:
    content = None if body is None else httpx.Request("POST", "http://x", json=body).content
    return server.client.request(method, path, content=content, headers=headers)


def flag_in_refusal(answer: httpx.Response) -> str:
    """The flag that a 403 names, in an answer that lets no page read it."""
    assert answer.status_code == 403, answer.text
    assert not [name for name in answer.headers if name.startswith("access-control-")]
    error = answer.json()["error"]
    assert error.keys() == {"code", "message", "type", "timestamp"}
    assert (error["code"], error["type"]) == (403, "authentication_error")
    (flag,) = [word for word in error["message"].split() if word.startswith("--")]
    return str(flag)


def save(server: Server) -> None:
    assert server.post(f"{MEMORY}/save", {"context_id": NAME, "state": {"n": 1}}).status_code == 200


def is_kept(server: Server) -> bool:
    return server.post(f"{MEMORY}/load", {"context_id": NAME}).status_code == 200


class TestOrigin:
    @pytest.mark.parametrize("kind", list(FOREIGN_PAGES))
    def test_of_another_site_is_refused_everywhere(self, remembering: Server, kind: str) -> None:
        save(remembering)
        for method, path, body in [*our_routes(remembering), *STOCK_ROUTES]:
            answer = send(remembering, method, path, body, FOREIGN_PAGES[kind])
            assert flag_in_refusal(answer) == "--cors-origins", (method, path)
        assert is_kept(remembering)

    def test_preflights_are_refused(self, remembering: Server) -> None:
        for path in ("/v1/atlas/config", f"{MEMORY}/delete", "/v1/chat/completions", "/v1/stream"):
            headers = {
                "Origin": FOREIGN,
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "content-type, x-conversation-id",
            }
            answer = remembering.client.request("OPTIONS", path, headers=headers)
            assert flag_in_refusal(answer) == "--cors-origins"
            if not path.startswith("/v1/atlas/"):
                headers["Access-Control-Request-Headers"] = "content-type"
                answer = remembering.client.request("OPTIONS", path, headers=headers)
                assert "access-control-allow-origin" not in answer.headers

    def test_own_pages_and_those_of_the_machine_are_let_in(self, remembering: Server) -> None:
        host = f"127.0.0.1:{remembering.port}"
        for headers in (
            {"Origin": f"http://{host}"},
            {"Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"},
            {"Origin": "http://localhost:3000", "Sec-Fetch-Site": "cross-site"},
            {"Origin": "http://[::1]:3000"},
            {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
        ):
            answer = remembering.client.get("/v1/atlas/status", headers=headers)
            assert answer.status_code == 200
            assert answer.headers.get("Access-Control-Allow-Origin") == headers.get("Origin")

    def test_a_link_leads_here(self, remembering: Server) -> None:
        link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
        assert remembering.client.get("/v1/atlas/dashboard", headers=link).status_code == 200
        answer = remembering.client.post(f"{MEMORY}/list", headers=link)
        assert flag_in_refusal(answer) == "--cors-origins"

    def test_clients_that_are_no_pages_notice_nothing(self, remembering: Server) -> None:
        for content_type in ("application/x-www-form-urlencoded", "text/plain", ""):
            headers = {"Content-Type": content_type} if content_type else {}
            answer = remembering.client.post(f"{MEMORY}/list", content="{}", headers=headers)
            assert answer.status_code == 200

    def test_what_stands_in_a_refused_body_is_not_obeyed(self, remembering: Server) -> None:
        save(remembering)
        body = f'{{"context_id": "{NAME}"}}'
        inner = (
            f"POST {MEMORY}/delete HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        )
        outer = (
            f"POST {MEMORY}/list HTTP/1.1\r\nHost: localhost\r\nOrigin: {FOREIGN}\r\n"
            f"Connection: keep-alive\r\nContent-Length: {len(inner)}\r\n\r\n{inner}"
        )
        with socket.create_connection(("127.0.0.1", remembering.port), timeout=30) as connection:
            connection.sendall(outer.encode())
            connection.shutdown(socket.SHUT_WR)
            answers = b"".join(iter(lambda: connection.recv(65536), b""))
        assert answers.count(b"HTTP/1.1 ") == 1
        assert answers.startswith(b"HTTP/1.1 403 ")
        assert is_kept(remembering)

    def test_those_named_are_allowed(self, start_server: StartServer, tmp_path: Path) -> None:
        named = "https://chat.example"
        server = start_server([*memory_options(tmp_path), "--cors-origins", named])
        headers = {"Origin": named, "Sec-Fetch-Site": "cross-site"}
        for method in ("OPTIONS", "POST"):
            answer = server.client.request(method, f"{MEMORY}/list", headers=headers)
            assert answer.status_code == 200
            assert answer.headers["Access-Control-Allow-Origin"] == named
        for other in (FOREIGN, "http://chat.example", "http://localhost:3000"):
            answer = server.client.post(f"{MEMORY}/list", headers={"Origin": other})
            assert answer.status_code == 403
        all_of_them = start_server(memory_options(tmp_path), {"LLAMA_ARG_CORS_ORIGINS": "*"}).client.post(
            f"{MEMORY}/list", headers={"Origin": FOREIGN}
        )
        assert all_of_them.headers["Access-Control-Allow-Origin"] == FOREIGN

    def test_a_key_does_not_change_it(self, start_server: StartServer, tmp_path: Path) -> None:
        server = start_server(memory_options(tmp_path), api_key=ADA)
        answer = server.client.post(f"{MEMORY}/list", headers={"Origin": FOREIGN})
        assert flag_in_refusal(answer) == "--cors-origins"

    def test_without_a_memory_stocks_routes_are_stocks(self, start_server: StartServer) -> None:
        server = start_server()
        for headers in ({"Origin": FOREIGN}, REBOUND):
            answer = server.client.post("/tokenize", json={"content": "a"}, headers=headers)
            assert answer.status_code == 200
            assert answer.headers["Access-Control-Allow-Origin"] == headers["Origin"]
            assert server.client.post("/v1/atlas/config", headers=headers).status_code == 403

    def test_the_log_names_the_first(self, start_server: StartServer, tmp_path: Path) -> None:
        server = start_server(memory_options(tmp_path))
        for name in ("first", "second"):
            server.client.post(f"{MEMORY}/list", headers={"Origin": f"https://{name}.example"})
        assert server.logged("--cors-origins https://first.example")
        assert "second.example" not in server.log


class TestHost:
    def test_another_name_is_refused_everywhere(self, remembering: Server) -> None:
        save(remembering)
        for method, path, body in [("GET", "/", None), *our_routes(remembering), *STOCK_ROUTES]:
            answer = send(remembering, method, path, body, REBOUND)
            assert flag_in_refusal(answer) == "--atlas-allowed-hosts", (method, path)
        assert flag_in_refusal(remembering.client.request("OPTIONS", "/v1/atlas/config", headers=REBOUND))
        assert is_kept(remembering)

    @pytest.mark.parametrize(
        "host", ["localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:8080", "192.168.1.7:80"]
    )
    def test_addresses_and_localhost_are_known(self, remembering: Server, host: str) -> None:
        assert remembering.client.get("/v1/atlas/status", headers={"Host": host}).status_code == 200

    def test_who_sends_none_is_no_browser(self, remembering: Server) -> None:
        with socket.create_connection(("127.0.0.1", remembering.port), timeout=30) as connection:
            connection.sendall(b"GET /v1/atlas/status HTTP/1.0\r\n\r\n")
            assert connection.makefile("rb").readline().split()[1] == b"200"

    def test_names_that_are_set_are_known(self, start_server: StartServer, tmp_path: Path) -> None:
        server = start_server(
            [*memory_options(tmp_path), "--atlas-allowed-hosts", "llm.example,other.example"]
        )
        page = {"Host": "LLM.example", "Origin": "http://llm.example"}
        assert server.client.post(f"{MEMORY}/list", headers=page).status_code == 200
        assert server.client.post(f"{MEMORY}/list", headers={"Host": "a.llm.example"}).status_code == 403
        any_name = start_server(memory_options(tmp_path), {"ATLAS_ALLOWED_HOSTS": "*"})
        assert any_name.client.get("/v1/atlas/status", headers=REBOUND).status_code == 200

    @pytest.mark.parametrize("name", ["http://llm.example", "llm.example:8080", "*.example", "a b"])
    def test_what_is_no_name_is_refused(self, spawn_server: StartServer, name: str) -> None:
        server = spawn_server(["--atlas-allowed-hosts", f"fine.example,{name}"])
        assert server.wait() != 0
        assert f"--atlas-allowed-hosts: '{name}' is not the name of a host" in server.log

    @pytest.mark.parametrize("options", [["--api-key", ADA], ["--host", "0.0.0.0"]], ids=["key", "network"])
    def test_is_asked_for_elsewhere_where_names_are_set(
        self, start_server: StartServer, tmp_path: Path, options: list[str]
    ) -> None:
        server = with_key(start_server([*memory_options(tmp_path), *options]), ADA)
        assert server.client.get("/v1/atlas/status", headers=REBOUND).status_code == 200
        named = with_key(
            start_server([*memory_options(tmp_path), *options, "--atlas-allowed-hosts", "llm.example"]), ADA
        )
        assert flag_in_refusal(named.client.get("/v1/atlas/status", headers=REBOUND))
        assert named.client.get("/v1/atlas/status", headers={"Host": "llm.example"}).status_code == 200

    def test_is_not_asked_for_on_a_unix_socket(self, spawn_server: StartServer, tmp_path: Path) -> None:
        path = tmp_path / "llama.sock"
        server = spawn_server([*memory_options(tmp_path), "--host", path])
        server.client = httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://any.name")
        server.wait_until(lambda: "listening on unix://" in server.log)  # after the model is loaded
        assert server.get("/v1/atlas/status").status_code == 200
        page = server.client.post(f"{MEMORY}/list", headers={"Origin": FOREIGN})
        assert flag_in_refusal(page) == "--cors-origins"


class TestRouter:
    """A router's pages are not those of its models' servers, whose addresses are others."""

    NAME = "first"

    @pytest.fixture
    def router(self, start_server: StartServer, tmp_path: Path) -> Server:
        (tmp_path / "models").mkdir()
        (tmp_path / "models" / f"{self.NAME}.gguf").symlink_to(MODEL)
        options = ["--models-dir", tmp_path / "models", *memory_options(tmp_path)]
        return start_server([*options, "--atlas-allowed-hosts", "llm.example"], model=None)

    def test_checks_for_its_models(self, router: Server) -> None:
        body = {**BODIES["/v1/chat/completions"], "model": self.NAME, "atlas": {"session_id": NAME}}
        listing = {"model": self.NAME}
        own = {"Host": "llm.example", "Origin": "http://llm.example"}
        of_the_machine = {"Origin": "http://127.0.0.1:3000", "Sec-Fetch-Site": "cross-site"}
        for page in (own, of_the_machine):
            for path, sent in (("/v1/chat/completions", body), (f"{MEMORY}/list", listing)):
                answer = router.client.post(path, json=sent, headers=page)
                assert answer.status_code == 200, answer.text
        for page in (FOREIGN_PAGES["origin"], FOREIGN_PAGES["image"], REBOUND):
            for path, sent in (("/v1/chat/completions", body), (f"{MEMORY}/list", listing)):
                assert flag_in_refusal(send(router, "POST", path, sent, page))

        arguments = router.get("/models").json()["data"][0]["status"]["args"]
        child = f"http://127.0.0.1:{arguments[arguments.index('--port') + 1]}"
        assert httpx.post(f"{child}{MEMORY}/list").status_code == 200
        for page in (FOREIGN_PAGES["origin"], FOREIGN_PAGES["image"], REBOUND):
            assert flag_in_refusal(httpx.post(f"{child}{MEMORY}/list", headers=page))


def test_wrong_keys_are_refused_as_ever(start_server: StartServer) -> None:
    server = start_server(["--api-key", f"{ADA},{BEN}"])
    for known in (ADA, BEN):
        assert with_key(server, known).get("/props").status_code == 200
    wrong: tuple[str | None, ...] = (None, ADA[:-1], f"{ADA}a", f"{ADA}{ADA}", ADA.upper(), f"{ADA},{BEN}")
    for key in wrong:
        assert with_key(server, key).get("/props").status_code == 401
