"""A page of another site in Chromium, which tries what tests/server/test_web_pages.py sends by hand."""

import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.server.conftest import StartServer
from tests.server.conversations import memory_options
from tests.server.harness import Server

SITE = "elsewhere.example"
MEMORY = "/v1/atlas/memory"

# Needs no preflight; resolves to what the page may know of the answer.
SEND = """([url, body]) => fetch(url, {
  method: "POST", mode: "no-cors", headers: { "Content-Type": "text/plain" }, body: JSON.stringify(body),
}).then((answer) => answer.type)"""
READ = """(url) => fetch(url, { method: "POST", body: "{}" }).then((answer) => answer.text(), String)"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, for which the site's name means this machine, as after DNS rebinding."""
    program = shutil.which("chromium")
    assert program, "pages are tested in Chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        rules = f"--host-resolver-rules=MAP {SITE} 127.0.0.1"
        yield playwright.chromium.launch(executable_path=program, args=[rules])


@pytest.fixture
def page(browser: Browser, tmp_path: Path) -> Iterator[Page]:
    """An empty page of the site."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").touch()
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path / "site")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        context = browser.new_context()
        opened = context.new_page()
        opened.goto(f"http://{SITE}:{site.server_port}/")
        yield opened
        context.close()
        site.shutdown()


def save(server: Server, name: str) -> None:
    assert server.post(f"{MEMORY}/save", {"context_id": name, "state": {"secret": 1}}).status_code == 200


def is_kept(server: Server, name: str) -> bool:
    return server.post(f"{MEMORY}/load", {"context_id": name}).status_code == 200


def test_deletes_and_reads_nothing(page: Page, start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(memory_options(tmp_path))
    save(server, "kept")
    assert page.evaluate(SEND, [f"{server.url}{MEMORY}/delete", {"context_id": "kept"}]) == "opaque"
    assert is_kept(server, "kept")
    assert "TypeError" in page.evaluate(READ, f"{server.url}{MEMORY}/list")


def test_may_do_both_where_it_is_named(page: Page, start_server: StartServer, tmp_path: Path) -> None:
    origin = page.evaluate("location.origin")
    server = start_server([*memory_options(tmp_path), "--cors-origins", origin])
    save(server, "kept")
    assert "kept" in page.evaluate(READ, f"{server.url}{MEMORY}/list")
    page.evaluate(SEND, [f"{server.url}{MEMORY}/delete", {"context_id": "kept"}])
    assert not is_kept(server, "kept")


def test_is_not_the_servers_own_under_its_name(page: Page, start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(memory_options(tmp_path))
    rebound = f"http://{SITE}:{server.port}"
    answer = page.goto(f"{rebound}/v1/atlas/dashboard")
    assert answer
    assert answer.status == 403
    # the page of the error is of that origin
    assert "--atlas-allowed-hosts" in page.evaluate(READ, f"{rebound}{MEMORY}/list")
