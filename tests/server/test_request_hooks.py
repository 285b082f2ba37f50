"""Hooks on the path of requests: what a plugin says happens, on every route, streamed or not."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.server.completions import BODIES, MESSAGES, ROUTES, complete, found
from tests.server.conftest import StartServer
from tests.server.harness import Server, stream_events, write_plugin

# What the header X-Do says, the plugin does, in the hook that it names: "on_request reject".
PLUGIN = """
from collections import defaultdict
from copy import deepcopy

from atlas_plugin import Modify, Reject, Respond, Response, hookimpl

seen = defaultdict(list)


def saw(hook, request, value):
    told = {"hook": hook, "value": value, "session": request.session_id, "state": deepcopy(request.state)}
    seen[request.headers["x-test"]].append(told)
    request.state.setdefault("hooks", []).append(hook)
    return request.headers["x-do"] if request.headers["x-do"].startswith(hook) else ""


def decide(wish, modified):
    if wish.endswith("modify"):
        return Modify(modified())
    if wish.endswith("reject"):
        return Reject(418, "a plugin said no", headers={"Retry-After": "7", "X-By": "a plugin"})
    if wish.endswith("respond"):
        return Respond(Response(202, {"by": "a plugin"}, headers={"X-By": "plugin"}))
    if wish.endswith("raise"):
        raise RuntimeError("a plugin is broken")
    return "nonsense" if wish.endswith("nonsense") else None


@hookimpl
def on_request(request, body):
    one = {"max_tokens": 1, "n_predict": 1, "max_output_tokens": 1, "atlas": {"session_id": "from-a-plugin"}}
    return decide(saw("on_request", request, body), lambda: {**body, **one})


@hookimpl
def on_prompt(request, prompt):
    return decide(saw("on_prompt", request, prompt), lambda: prompt + " Really?")


@hookimpl
def on_response(request, answer):
    return decide(saw("on_response", request, answer), lambda: {**answer, "by": "a plugin"})


@hookimpl(batch=4)
def on_stream_chunk(request, chunk):
    def marked():
        events = deepcopy(list(chunk.events))
        for event in events:
            (event["data"] if "data" in event else event)["by"] = "a plugin"
        return events

    return decide(saw("on_stream_chunk", request, [list(chunk.events), chunk.is_last]), marked)


@hookimpl
def on_finished(request, record):
    saw("on_finished", request, record)


@hookimpl
def on_failed(request, record):
    saw("on_failed", request, record)


@hookimpl
def register_routes(routes):
    @routes.get("/v1/atlas/x/seen/{name}")
    def told(request):
        return seen[request.path_params["name"]]
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("server")
    # deadlines that a busy machine keeps
    options = ["--atlas-plugin", str(write_plugin(directory, PLUGIN)), "--atlas-hook-deadline-ms", "60000"]
    with Server(options, directory=directory) as server:
        yield server


class Asking:
    """A request that the plugin is to do something with, and what its hooks saw of it."""

    def __init__(self, server: Server, name: str, wish: str = "") -> None:
        self.server = server
        self.name = name
        self.headers = {"X-Test": name, "X-Do": wish}

    def post(self, path: str, **fields: Any) -> Any:
        return self.server.post(path, {**BODIES[path], **fields}, headers=self.headers)

    def seen(self) -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = self.server.get(f"/v1/atlas/x/seen/{self.name}").json()
        return told

    def of(self, hook: str) -> list[dict[str, Any]]:
        return [one for one in self.seen() if one["hook"] == hook]

    def last(self) -> dict[str, Any]:
        """What the end of the request was told with; it comes some time after the answer."""
        ends = ("on_finished", "on_failed")
        self.server.wait_until(lambda: any(one["hook"] in ends for one in self.seen()))
        return self.seen()[-1]


@pytest.mark.parametrize("path", ROUTES)
class TestEveryRoute:
    def test_all_hooks_see_a_request(self, server: Server, path: str) -> None:
        asking = Asking(server, f"all{path.replace('/', '-')}")
        answer = asking.post(path, atlas={"session_id": "s"})
        assert answer.status_code == 200
        last = asking.last()
        assert [one["hook"] for one in asking.seen()] == [
            "on_request",
            "on_prompt",
            "on_response",
            "on_finished",
        ]
        assert {one["session"] for one in asking.seen()} == {"s"}
        assert last["state"] == {"hooks": ["on_request", "on_prompt", "on_response"]}
        assert last["value"]["outcome"] == "ok"
        assert asking.of("on_request")[0]["value"] == {**BODIES[path], "atlas": {"session_id": "s"}}
        assert "Ada" in asking.of("on_prompt")[0]["value"]
        assert asking.of("on_response")[0]["value"] == answer.json()

    def test_all_hooks_see_a_stream(self, server: Server, path: str) -> None:
        asking = Asking(server, f"stream{path.replace('/', '-')}")
        events = stream_events(asking.post(path, stream=True).text)
        asking.last()
        chunks = [one["value"] for one in asking.of("on_stream_chunk")]
        assert [is_last for _, is_last in chunks] == [False] * (len(chunks) - 1) + [True]
        seen = [event.get("data", event) for each, _ in chunks for event in each]
        for event in events:
            event.pop("sequence_number", None)  # /v1/responses numbers what hooks leave of it
        assert seen == events
        assert not asking.of("on_response")

    @pytest.mark.parametrize("hook", ["on_request", "on_prompt", "on_response"])
    def test_a_refusal(self, server: Server, path: str, hook: str) -> None:
        asking = Asking(server, f"reject-{hook}{path.replace('/', '-')}", f"{hook} reject")
        answer = asking.post(path)
        assert answer.status_code == 418
        assert answer.json()["error"]["message"] == "a plugin said no"
        assert (answer.headers["Retry-After"], answer.headers["X-By"]) == ("7", "a plugin")
        assert asking.last()["hook"] == "on_failed"
        assert asking.last()["value"]["outcome"] == "refused"

    @pytest.mark.parametrize("hook", ["on_request", "on_prompt"])
    @pytest.mark.parametrize("stream", [False, True])
    def test_an_answer_in_the_models_place(self, server: Server, path: str, hook: str, stream: bool) -> None:
        asking = Asking(server, f"respond-{stream}-{hook}{path.replace('/', '-')}", f"{hook} respond")
        answer = asking.post(path, stream=stream)
        assert (answer.status_code, answer.json()) == (202, {"by": "a plugin"})
        assert answer.headers["x-by"] == "plugin"
        assert asking.last()["hook"] == "on_finished"
        assert asking.last()["value"]["tokens"]["answer"] == 0

    def test_another_body(self, server: Server, path: str) -> None:
        asking = Asking(server, f"body{path.replace('/', '-')}", "on_request modify")
        answer = asking.post(path).json()
        assert answer["atlas"]["session_id"] == "from-a-plugin"
        last = asking.last()
        assert last["session"] == "from-a-plugin"
        assert last["value"]["tokens"]["answer"] == 1

    def test_another_prompt(self, server: Server, path: str) -> None:
        stock = Asking(server, f"same-prompt{path.replace('/', '-')}")
        stock.post(path)
        asking = Asking(server, f"prompt{path.replace('/', '-')}", "on_prompt modify")
        assert asking.post(path).status_code == 200
        assert asking.last()["value"]["tokens"]["prompt"] > stock.last()["value"]["tokens"]["prompt"]

    def test_another_answer(self, server: Server, path: str) -> None:
        asking = Asking(server, f"answer{path.replace('/', '-')}", "on_response modify")
        assert asking.post(path).json()["by"] == "a plugin"

    def test_other_events(self, server: Server, path: str) -> None:
        asking = Asking(server, f"events{path.replace('/', '-')}", "on_stream_chunk modify")
        events = stream_events(asking.post(path, stream=True).text)
        assert [event["by"] for event in events if event != "[DONE]"] == ["a plugin"] * sum(
            event != "[DONE]" for event in events
        )

    @pytest.mark.parametrize("wrong", ["raise", "nonsense"])
    def test_one_that_fails_changes_nothing(self, server: Server, path: str, wrong: str) -> None:
        for hook in ("on_request", "on_prompt", "on_response"):
            asking = Asking(server, f"{wrong}-{hook}{path.replace('/', '-')}", f"{hook} {wrong}")
            assert asking.post(path).status_code == 200
        asking = Asking(server, f"{wrong}-chunk{path.replace('/', '-')}", f"on_stream_chunk {wrong}")
        assert len(stream_events(asking.post(path, stream=True).text)) > 1


def test_several_choices_are_one_answer(server: Server) -> None:
    asking = Asking(server, "choices", "on_response modify")
    answer = asking.post("/v1/chat/completions", n=2).json()
    assert answer["by"] == "a plugin"
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    assert len(asking.of("on_response")) == 1


def test_a_stream_that_has_begun_ends_with_the_refusal(server: Server) -> None:
    asking = Asking(server, "midstream", "on_stream_chunk reject")
    answer = asking.post("/v1/chat/completions", stream=True, max_tokens=32)
    assert "a plugin said no" in answer.text
    assert "[DONE]" not in answer.text
    assert asking.last()["hook"] == "on_failed"


def test_what_is_refused_before_a_hook_is_told_as_failed(server: Server) -> None:
    asking = Asking(server, "bad-object")
    assert asking.post("/v1/chat/completions", atlas={"memory_layers": 77}).status_code == 400
    assert [asking.last()["hook"]] == [one["hook"] for one in asking.seen()] == ["on_failed"]


def test_without_a_hook_no_request_enters_python(start_server: StartServer) -> None:
    server = start_server()

    def calls() -> dict[str, str]:
        lines = server.get("/v1/atlas/metrics/prometheus").text.splitlines()
        kinds = ("atlas_hook_calls_total", 'atlas_python_calls_total{function="call"')
        return dict(line.rsplit(" ", 1) for line in lines if line.startswith(kinds) and "report_" not in line)

    before = calls()
    for path in ROUTES:
        complete(server, path)
        complete(server, path, stream=True)
    assert calls() == before


def test_messages_are_as_the_client_sent_them(server: Server) -> None:
    asking = Asking(server, "messages")
    asking.post("/v1/chat/completions")
    assert next(found(asking.of("on_request"), "messages")) == MESSAGES
