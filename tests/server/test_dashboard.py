"""The dashboard as Chromium shows it, before a server that is used meanwhile."""

import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from tests.server.conftest import StartServer
from tests.server.conversations import (
    NO_PRELOADING,
    Conversation,
    chat,
    flush,
    kill_and_start,
    memory_options,
)
from tests.server.harness import MODEL, Server
from tests.server.keys import ADA, ADMIN, BEN, key_options, with_key
from tests.server.tiers import misbehave, write_tier

DASHBOARD = "/v1/atlas/dashboard"
PHONE = {"width": 390, "height": 844}
# The server's first poll after a load, and the wait before the page connects again, take seconds.
expect.set_options(timeout=20_000)

OpenPage = Callable[..., Page]

# The least contrast of a text with what is behind it, and whose it is.
LEAST_CONTRAST = """() => {
  const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
  const luminance = (color) => {
    const linear = (c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = numbers(color).map((c) => linear(c / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const color = getComputedStyle(e).backgroundColor;
      if (numbers(color)[3] !== 0) return color;
    }
    return "rgb(255, 255, 255)";
  };
  let least = [21, ""];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !element.checkVisibility()) continue;
    const colors = [getComputedStyle(element).color, behind(element)];
    const [dark, light] = colors.map(luminance).sort((a, b) => a - b);
    const contrast = (light + 0.05) / (dark + 0.05);
    if (contrast < least[0]) least = [contrast, texts.currentNode.data];
  }
  return least;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium")
    assert program, "the dashboard is tested in Chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=program)


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """Opens a server's dashboard, or a URL, in a context with those options; no script may fail in it."""
    contexts, problems = [], []

    def opened(server: Server | str, **options: Any) -> Page:
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "console", lambda message: problems.append(message.text) if _is_problem(message.text) else None
        )
        page.goto(server.url + DASHBOARD if isinstance(server, Server) else server)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture
def remembering(start_server: StartServer, tmp_path: Path) -> Server:
    """A server with a memory that nobody else uses."""
    return start_server(memory_options(tmp_path))


def _is_problem(text: str) -> bool:
    # The browser itself writes of every answer that is an error, and those the page expects.
    return "Failed to load resource" not in text


def answer_text(status: int, message: str) -> Callable[[Route], None]:
    """Answers a request of the page with an error."""
    return lambda route: route.fulfill(status=status, json={"error": {"message": message}})


def number_in(page: Page, selector: str) -> int:
    return int(page.locator(selector).inner_text().replace(",", ""))


def row_of(page: Page, session: str) -> Any:
    return page.locator("#sessions tbody tr", has=page.get_by_text(session, exact=True))


@contextmanager
def load(server: Server) -> Iterator[None]:
    """Two clients that stream one answer after the other, each in its session, while the block runs."""
    ended = threading.Event()

    def use(client: int) -> None:
        asked = Conversation(client).asking("What is my name?")
        body = {
            "messages": asked,
            "max_tokens": 24,
            "stream": True,
            "atlas": {"session_id": f"load-{client}"},
        }
        while not ended.is_set():
            assert server.post("/v1/chat/completions", body).status_code == 200

    clients = [threading.Thread(target=use, args=(client,)) for client in range(2)]
    for client in clients:
        client.start()
    try:
        yield
    finally:
        ended.set()
        for client in clients:
            client.join()


class TestLive:
    def test_it_follows_the_load(self, remembering: Server, open_page: OpenPage) -> None:
        page = open_page(remembering)
        expect(page.locator("#connection")).to_have_text("Live")
        expect(page.locator("#health")).to_have_text("healthy")
        expect(page.locator("#model")).to_have_text(MODEL.name)
        expect(page.locator("#total")).to_have_text("0")
        expect(page.locator("#first-p50")).to_have_text("\u2013")
        with load(remembering):
            expect(page.locator("#throughput")).to_have_text(re.compile(r"[1-9]"))
            for measured in ("first-p50", "first-p99", "inter-p50", "inter-p99"):
                expect(page.locator(f"#{measured}")).to_have_text(re.compile(r"\d (ms|s)"))
            before = number_in(page, "#total")
            expect(page.locator("#requests tbody tr")).to_have_count(12)
            remembering.wait_until(lambda: number_in(page, "#total") > before)
            expect(page.locator("#layers li").first).to_have_text(re.compile(r"^RAM.*iB of 8 GiB$"))
            expect(row_of(page, "load-1")).to_be_visible()
        assert page.locator("#throughput-line .line").get_attribute("d").count("L") > 1  # type: ignore[union-attr]
        expect(page.locator("#active")).to_have_text("0")
        shares = page.locator("#sources b").all_inner_texts()
        assert len(shares) == 6
        assert sum(float(share.removesuffix("\u202f%")) for share in shares) == pytest.approx(100, abs=2.1)

    def test_a_restore_and_its_reason(self, remembering: Server, open_page: OpenPage) -> None:
        page = open_page(remembering)
        conversation = Conversation(0)
        conversation.ask(remembering, atlas={"session_id": "ada"})
        newest = page.locator("#requests tbody tr").first
        expect(newest).to_contain_text("no match")
        flush(remembering)
        remembering.command += NO_PRELOADING
        kill_and_start(remembering)
        answer = conversation.ask(remembering, atlas={"session_id": "ada"})
        assert answer.layer == 2
        expect(newest).to_contain_text("restored from disk")
        reused = newest.locator("td[data-label=Reused]")
        expect(reused).to_have_text(str(answer.reused))
        chat(remembering, [{"role": "user", "content": "Hi"}])
        expect(newest).not_to_contain_text("restored")
        page.get_by_label("restored only").check()
        expect(page.locator("#requests tbody tr")).to_have_count(1)
        expect(reused).to_have_text(str(answer.reused))

    def test_a_server_that_goes_and_comes(self, remembering: Server, open_page: OpenPage) -> None:
        page = open_page(remembering)
        expect(page.locator("#connection")).to_have_text("Live")
        remembering.kill()
        expect(page.locator("#connection")).to_have_text("Disconnected")
        expect(page.locator("#lost")).to_contain_text("Trying again")
        remembering.start()
        expect(page.locator("#connection")).to_have_text("Live")
        expect(page.locator("#lost")).to_be_hidden()

    def test_trying_again_at_once(self, remembering: Server, open_page: OpenPage) -> None:
        page = open_page("about:blank")
        page.route("**/v1/atlas/status", answer_text(503, "Loading model"))
        # The page would try again by itself, but its clock stands.
        page.clock.install(time=0)
        page.clock.pause_at(1)
        page.goto(remembering.url + DASHBOARD)
        expect(page.locator("#lost")).to_contain_text("Loading model. Trying again in about 1 s.")
        page.unroute("**/v1/atlas/status")
        page.get_by_role("button", name="Try now").click()
        expect(page.locator("#connection")).to_have_text("Live")

    def test_what_is_off_says_how_to_turn_it_on(self, start_server: StartServer, open_page: OpenPage) -> None:
        page = open_page(start_server(["--no-atlas-metrics"]))
        expect(page.locator("#live .message")).to_contain_text("turn that on with --atlas-metrics")
        expect(page.locator("#sessions .message")).to_contain_text(
            "start the server with --atlas-memory-path"
        )
        expect(page.locator("#live .tiles")).to_be_hidden()
        expect(page.locator("#requests .empty")).to_be_visible()
        expect(page.locator("#plugins tbody tr", has_text="dashboard")).to_contain_text("active")

    def test_a_plugin_that_failed(
        self, start_server: StartServer, open_page: OpenPage, tmp_path: Path
    ) -> None:
        (tmp_path / "broken.py").write_text("raise ValueError('<b>broken</b>')\n")
        page = open_page(start_server(["--atlas-plugin", tmp_path / "broken.py"]))
        row = page.locator("#plugins tbody tr").first
        expect(row).to_contain_text("failed")
        expect(row).to_contain_text("<b>broken</b>")
        expect(page.locator("#health")).to_have_text("degraded")
        expect(page.locator("#problems li")).to_contain_text("broken")


class TestSessions:
    def test_pin_and_delete(self, remembering: Server, open_page: OpenPage) -> None:
        chat(remembering, Conversation(0).asking("Who?"), atlas={"session_id": "ada"})
        chat(remembering, Conversation(1).asking("Who?"), atlas={"session_id": "ben"})
        page = open_page(remembering)
        row = row_of(page, "ada")
        row.get_by_role("button", name="Pin").click()
        expect(row).to_contain_text("pinned")
        assert self.loaded(remembering, "ada").json()["data"]["session"]["pinned"] is True
        # Rows move to their places once neither pointer nor focus is there.
        page.locator("h1").click()
        expect(page.locator("#sessions tbody tr").first).to_contain_text("ada")
        row.get_by_role("button", name="Unpin").click()
        expect(row).not_to_contain_text("pinned")
        assert self.loaded(remembering, "ada").json()["data"]["session"]["pinned"] is False

        dialog = page.get_by_role("dialog")
        row.get_by_role("button", name="Delete").click()
        expect(dialog).to_contain_text("ada")
        dialog.get_by_role("button", name="Cancel").click()
        expect(dialog).to_be_hidden()
        expect(row).to_be_visible()
        row.get_by_role("button", name="Delete").click()
        dialog.get_by_role("button", name="Delete").click()
        expect(row).to_have_count(0)
        expect(page.locator("#done")).to_have_text("ada deleted")
        assert self.loaded(remembering, "ada").status_code == 404
        expect(row_of(page, "ben")).to_be_visible()

    def loaded(self, server: Server, name: str) -> Any:
        return server.post("/v1/atlas/memory/load", {"context_id": name})

    def test_an_error_is_shown_where_it_happened(self, remembering: Server, open_page: OpenPage) -> None:
        chat(remembering, Conversation(0).asking("Who?"), atlas={"session_id": "ada"})
        page = open_page(remembering)
        page.route("**/memory/pin", answer_text(413, "too much is pinned"))
        row = row_of(page, "ada")
        row.get_by_role("button", name="Pin").click()
        expect(row.get_by_role("alert")).to_have_text("too much is pinned")
        expect(row.get_by_role("button", name="Pin")).to_be_enabled()

    def test_more_than_fit(self, remembering: Server, open_page: OpenPage) -> None:
        for number in range(205):
            remembering.post("/v1/atlas/memory/save", {"context_id": f"state-{number}", "state": {}})
        page = open_page(remembering)
        expect(page.locator("#sessions .count")).to_have_text("200+")
        expect(page.locator("#sessions tbody tr")).to_have_count(12)
        more = page.locator("#sessions .more")
        more.click()
        expect(page.locator("#sessions tbody tr")).to_have_count(24)
        expect(page.locator("#sessions .count")).to_have_text("205")

    def test_names_are_text(self, remembering: Server, open_page: OpenPage) -> None:
        hostile = "<img src=x onerror=document.title='owned'>"
        contexts = [{"context_id": hostile, "bytes": 2, "created": 1.0, "updated": 1.0, "session": None}]
        answer = {"status": "success", "data": {"contexts": contexts, "next_cursor": None}}
        page = open_page("about:blank")
        page.route("**/memory/list", lambda route: route.fulfill(json=answer))
        page.goto(remembering.url + DASHBOARD)
        expect(row_of(page, hostile)).to_be_visible()
        row_of(page, hostile).get_by_role("button", name="Delete").click()
        expect(page.locator("#delete-name")).to_have_text(hostile)
        assert page.locator("img").count() == 0


class TestKeys:
    def test_the_key_is_asked_for_and_kept(self, start_server: StartServer, open_page: OpenPage) -> None:
        page = open_page(start_server(api_key="secret"))
        dialog = page.get_by_role("dialog", name="API key")
        expect(dialog).to_be_visible()
        expect(page.locator("#connection")).to_have_text("Locked")
        expect(page.locator("#key-error")).to_be_hidden()
        for _ in range(3):
            page.keyboard.press("Escape")
        expect(dialog).to_be_visible()
        page.get_by_label("Key", exact=True).fill("wrong")
        dialog.get_by_role("button").click()
        expect(page.locator("#key-error")).to_have_text("The server does not know this key.")
        page.get_by_label("Key", exact=True).fill("secret")
        page.keyboard.press("Enter")
        expect(dialog).to_be_hidden()
        expect(page.locator("#connection")).to_have_text("Live")
        page.reload()
        expect(page.locator("#connection")).to_have_text("Live")
        expect(page.locator("#total")).to_have_text("0")
        page.get_by_role("button", name="Forget the key").click()
        expect(dialog).to_be_visible()
        assert page.evaluate("sessionStorage.length") == 0

    def test_each_key_sees_its_own(
        self, start_server: StartServer, open_page: OpenPage, tmp_path: Path
    ) -> None:
        server = start_server(key_options(tmp_path))
        server = with_key(server, ADMIN)
        for key, name in ((ADA, "of-ada"), (BEN, "of-ben")):
            chat(with_key(server, key), Conversation(0).asking("Who?"), atlas={"session_id": name})
        for key, names in ((ADA, ["of-ada"]), (ADMIN, ["of-ada", "of-ben"])):
            page = open_page(server)
            page.get_by_label("Key", exact=True).fill(key)
            page.keyboard.press("Enter")
            expect(page.locator("#sessions tbody tr")).to_have_count(len(names))
            expect(page.locator("#requests tbody tr")).to_have_count(len(names))
            for name in names:
                expect(row_of(page, name)).to_be_visible()
        row_of(page, "of-ben").get_by_role("button", name="Pin").click()
        expect(row_of(page, "of-ben")).to_contain_text("pinned")
        expect(row_of(page, "of-ada")).not_to_contain_text("pinned")


class TestPlaces:
    def test_behind_a_prefix(self, tmp_path: Path, open_page: OpenPage) -> None:
        server = Server([*memory_options(tmp_path), "--api-prefix", "/deep/api"], directory=tmp_path)
        try:
            server.spawn()
            server.wait_until(lambda: server.answers("/deep/api/health"))
            page = open_page(f"{server.url}/deep/api{DASHBOARD}")
            expect(page.locator("#connection")).to_have_text("Live")
            expect(page.locator("#total")).to_have_text("0")
            expect(page.locator("#sessions .empty")).to_be_visible()
        finally:
            server.kill()
            server.client.close()

    def test_a_model_of_a_router(
        self, start_server: StartServer, open_page: OpenPage, tmp_path: Path
    ) -> None:
        models = tmp_path / "models"
        models.mkdir()
        shutil.copy(MODEL, models / "first.gguf")
        router = start_server(["--models-dir", models, *memory_options(tmp_path)], model=None)
        chat(router, Conversation(0).asking("Who?"), model="first", atlas={"session_id": "ada"})
        page = open_page(router)
        expect(page.locator("#memory-off")).to_contain_text("This is a router")
        expect(page.locator("#total")).to_have_text("0")
        page.get_by_role("link", name="first").click()
        expect(page.locator("#model")).to_have_text("first")
        expect(page.locator("#total")).to_have_text("1")
        expect(page.locator("#requests tbody tr")).to_have_count(1)
        row = row_of(page, "ada")
        row.get_by_role("button", name="Pin").click()
        expect(row).to_contain_text("pinned")

    def test_without_a_key_no_model_is_loaded(self, start_server: StartServer, tmp_path: Path) -> None:
        shutil.copy(MODEL, tmp_path / "first.gguf")
        router = start_server(["--models-dir", tmp_path], model=None, api_key="secret")
        stranger = with_key(router, None)
        assert "<title>ATLAS" in stranger.get(f"{DASHBOARD}?model=first").text
        assert stranger.post(DASHBOARD, {"model": "first"}).status_code == 405
        (model,) = router.get("/models").json()["data"]
        assert model["status"]["value"] == "unloaded"


class TestLooks:
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    @pytest.mark.parametrize("size", [PHONE, {"width": 1280, "height": 800}], ids=["phone", "desk"])
    def test_it_fits_and_can_be_read(
        self, remembering: Server, open_page: OpenPage, scheme: str, size: dict[str, int]
    ) -> None:
        name = "long" * 32
        chat(remembering, Conversation(0).asking("Who?"), atlas={"session_id": name})
        page = open_page(remembering, viewport=size, color_scheme=scheme)
        expect(row_of(page, name)).to_be_visible()
        expect(page.locator("#requests tbody tr")).to_have_count(1)
        assert page.evaluate("document.documentElement.scrollWidth") == size["width"]
        red, green, blue = page.evaluate(
            "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
        )
        assert (max(red, green, blue) < 64) == (scheme == "dark")
        contrast, text = page.evaluate(LEAST_CONTRAST)
        assert contrast >= 4.5, text


def test_every_layer_is_shown_alike(open_page: OpenPage, start_server: StartServer, tmp_path: Path) -> None:
    """A plugin's beside RAM and disk, and why it does not work."""
    place = tmp_path / "place"
    place.mkdir()
    misbehave(place, probe="throw")
    server = start_server([*memory_options(tmp_path), "--atlas-plugin", write_tier(place)])
    page = open_page(server)
    rows = page.locator("#tiers tbody tr")
    expect(rows).to_have_count(3)
    assert [rows.nth(number).locator("td").first.inner_text() for number in range(3)] == [
        "1 ram",
        "2 disk",
        "4 files",
    ]
    expect(rows.nth(0)).to_contain_text("works")
    expect(rows.nth(2)).to_contain_text("RuntimeError: a tier is broken")
