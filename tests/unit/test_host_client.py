"""What a plugin's tests know of host.ask and what stands on it, without a server."""

import textwrap
from pathlib import Path

import pytest

from atlas_plugin import AskError, CompletionRequest, Request
from atlas_plugin.testing import Application, FakeHost

ANSWER = {"choices": [{"message": {"role": "assistant", "content": "Ada"}}]}

SUMMARY = """
    from atlas_plugin import Modify, hookimpl

    @hookimpl
    def startup(host):
        global server
        server = host

    @hookimpl
    def on_request(request, body):
        answer = server.complete(body["messages"], max_tokens=5, tenant=request.tenant)
        said = answer["choices"][0]["message"]["content"]
        server.memory.save("last", {"answer": said}, tenant=request.tenant)
        return Modify({**body, "n": len(server.tokenize("a b"))})
"""


@pytest.fixture
def host() -> FakeHost:
    return FakeHost()


def test_a_completion(host: FakeHost) -> None:
    host.answers["/v1/chat/completions"] = ANSWER
    assert host.complete("Hi", max_tokens=1) == ANSWER
    messages = [{"role": "user", "content": "Hi"}]
    assert host.asked == [("/v1/chat/completions", {"messages": messages, "max_tokens": 1})]


def test_an_answer_that_depends_on_the_body(host: FakeHost) -> None:
    host.answers["/tokenize"] = lambda body: {"tokens": list(range(len(body["content"])))}
    assert host.tokenize("abc") == [0, 1, 2]


def test_a_test_that_has_no_answer_is_told(host: FakeHost) -> None:
    with pytest.raises(AssertionError, match="has nothing for /tokenize"):
        host.tokenize("abc")


@pytest.mark.parametrize("timeout_s", [0, -1, 1e9, float("nan")])
def test_a_time_that_cannot_be(host: FakeHost, timeout_s: float) -> None:
    with pytest.raises(ValueError, match="timeout_s must be from"):
        host.ask("/health", timeout_s=timeout_s)


def test_what_json_cannot_hold(host: FakeHost) -> None:
    with pytest.raises(TypeError):
        host.complete([{"role": "user", "content": b"bytes"}])


def test_the_reason_of_a_refusal(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    for body, reason in (
        (b'{"error": {"message": "no"}}', "no"),
        (b"[]", "it gave no reason"),
        (b"\xff", "it gave no reason"),
    ):
        monkeypatch.setattr(host, "call_route", lambda *_, body=body: (400, body))
        with pytest.raises(AskError) as caught:
            host.ask("/health")
        assert (caught.value.answered, caught.value.reason) == (400, reason)
        assert caught.value.status == 500


def test_plugins_get_it(tmp_path: Path) -> None:
    """A plugin under test asks the Application's own routes, and the answers of the test."""
    plugin = tmp_path / "summary.py"
    plugin.write_text(textwrap.dedent(SUMMARY))
    host = FakeHost(plugins=[str(plugin)], memory_save_path=str(tmp_path / "memory"))
    host.answers = {"/v1/chat/completions": ANSWER, "/tokenize": {"tokens": [1, 2]}}
    request = CompletionRequest("/v1/chat/completions", "r1", tenant="ab" * 8)
    with Application(host) as application:
        asked = application.ask("on_request", request, {"messages": []})
        assert asked.value["n"] == 2
        load = Request("POST", "/v1/atlas/memory/load", body=b'{"context_id": "last"}')
        assert application.handle(load).status == 404
        loaded = host.memory.load("last", tenant="ab" * 8)
    assert loaded["state"] == {"answer": "Ada"}
