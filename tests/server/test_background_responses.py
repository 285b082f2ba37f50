"""Responses that the server makes by itself: polled, streamed from anywhere, cancelled, and their end."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.server.conftest import StartServer
from tests.server.conversations import ASK_NAME, kill_and_start, memory_options
from tests.server.harness import Server, stream_events, write_plugin
from tests.server.keys import ADA, ADMIN, BEN, key_options, with_key
from tests.server.test_responses import FIELDS, NAME, ROUTE, ask, client_of, problem_of, text_of

ENDLESS: dict[str, Any] = {"max_output_tokens": 1_000_000, "ignore_eos": True}
ENDLESS_OPTIONS = ["--context-shift"]
"""Without it an answer ends where the context does."""
UNFINISHED = ("queued", "in_progress")


def begin(server: Server, said: str = NAME, **fields: Any) -> dict[str, Any]:
    """A response in the background, as it is answered at once."""
    response = ask(server, said, background=True, **fields)
    assert response["status"] in UNFINISHED
    assert response["background"] is True
    return response


def shown(server: Server, name: str) -> dict[str, Any]:
    answer = server.get(f"{ROUTE}/{name}")
    assert answer.status_code == 200, answer.text
    response: dict[str, Any] = answer.json()
    return response


def ended(server: Server, name: str) -> dict[str, Any]:
    """The response once it has ended."""
    server.wait_until(lambda: shown(server, name)["status"] not in UNFINISHED)
    return shown(server, name)


def begin_endless(server: Server, **fields: Any) -> str:
    """The id of a response that is made until it is cancelled, once it is being made."""
    name: str = begin(server, **ENDLESS, **fields)["id"]
    server.wait_until(lambda: busy_slots(server) > 0 and shown(server, name)["status"] == "in_progress")
    return name


def busy_slots(server: Server) -> int:
    return sum(slot["is_processing"] for slot in server.get("/slots").json())


def cancel(server: Server, name: str) -> dict[str, Any]:
    answer = server.post(f"{ROUTE}/{name}/cancel")
    assert answer.status_code == 200, answer.text
    response: dict[str, Any] = answer.json()
    return response


def events_of(server: Server, name: str, after: int | None = None) -> list[dict[str, Any]]:
    """All events of a stream that ends."""
    behind = "" if after is None else f"&starting_after={after}"
    answer = server.get(f"{ROUTE}/{name}?stream=true{behind}")
    assert answer.status_code == 200, answer.text
    return stream_events(answer.text)


def numbers(events: list[dict[str, Any]]) -> list[int]:
    return [event["sequence_number"] for event in events]


def deltas(events: list[dict[str, Any]]) -> str:
    return "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")


def in_background(server: Server) -> dict[str, int]:
    """What the status says of them."""
    data: dict[str, int] = server.get("/v1/atlas/status").json()["data"]["background"]
    return data


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("background")
    with Server([*memory_options(directory), *ENDLESS_OPTIONS], directory=directory) as running:
        yield running


class TestPolled:
    def test_as_if_its_client_had_waited(self, server: Server) -> None:
        with client_of(server) as client:
            waited = client.responses.create(input=NAME, **FIELDS)
            begun = client.responses.create(input=NAME, background=True, **FIELDS)
            assert begun.status in UNFINISHED
            response = begun
            while response.status in UNFINISHED:
                response = client.responses.retrieve(begun.id)
            assert (response.status, response.output_text) == ("completed", waited.output_text)
            assert (response.id, response.created_at) == (begun.id, begun.created_at)
            assert response.background is True
            assert response.usage.output_tokens == waited.usage.output_tokens
            second = client.responses.create(input=ASK_NAME, previous_response_id=begun.id, **FIELDS)
            assert second.output_text == "Your name is Nora."
            items = list(client.responses.input_items.list(begun.id))
            assert [item.content[0].text for item in items] == [NAME]

    def test_goes_on_from_another(self, server: Server) -> None:
        first = ended(server, begin(server)["id"])
        second = ended(server, begin(server, ASK_NAME, previous_response_id=first["id"])["id"])
        assert text_of(second) == "Your name is Nora."

    def test_cut_off(self, server: Server) -> None:
        response = ended(server, begin(server, max_output_tokens=2)["id"])
        assert response["status"] == "incomplete"
        assert response["incomplete_details"] == {"reason": "max_output_tokens"}

    def test_a_prompt_that_does_not_fit(self, server: Server) -> None:
        """Known only once it is its turn; with a client that waits it is the same words."""
        said = "word " * 6000
        waited = problem_of(server.post(ROUTE, {**FIELDS, "input": said}), 400)
        answer = server.post(ROUTE, {**FIELDS, "input": said, "background": True, "stream": True})
        last = stream_events(answer.text)[-1]
        assert last["type"] == "response.failed"
        response = shown(server, last["response"]["id"])
        assert response == last["response"]
        assert response["error"] == {"code": "invalid_prompt", "message": waited}

    def test_survives_a_kill(self, start_server: StartServer, tmp_path: Path) -> None:
        server = start_server(
            [*memory_options(tmp_path), *ENDLESS_OPTIONS, "--atlas-background-running", "1"]
        )
        complete = ended(server, begin(server)["id"])
        running, waiting = begin_endless(server), begin(server, **ENDLESS)["id"]
        kill_and_start(server)
        assert shown(server, complete["id"]) == complete
        for name in (running, waiting):
            response = shown(server, name)
            assert (response["status"], response["error"]["code"]) == ("failed", "server_error")
            assert "the server was stopped" in response["error"]["message"]

    def test_ends_with_the_server(self, start_server: StartServer, tmp_path: Path) -> None:
        server = start_server(
            [*memory_options(tmp_path), *ENDLESS_OPTIONS, "--atlas-background-running", "1"]
        )
        running, waiting = begin_endless(server), begin(server, **ENDLESS)["id"]
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        server.start()
        for name in (running, waiting):
            response = shown(server, name)
            assert response["status"] == "failed"
            assert "the server was stopped" in response["error"]["message"]


class TestCancelled:
    def test_while_it_is_made(self, server: Server) -> None:
        name = begin_endless(server)
        cancelled = in_background(server)["cancelled"]
        with client_of(server) as client:
            assert client.responses.cancel(name).status == "cancelled"
            server.wait_until(lambda: busy_slots(server) == 0)
            assert client.responses.cancel(name).status == "cancelled"
            assert client.responses.retrieve(name).status == "cancelled"
        assert in_background(server)["cancelled"] == cancelled + 1

    def test_a_complete_one_stays(self, server: Server) -> None:
        response = ended(server, begin(server)["id"])
        assert cancel(server, response["id"]) == response

    def test_one_that_a_client_waited_for(self, server: Server) -> None:
        name = ask(server, NAME)["id"]
        answer = server.post(f"{ROUTE}/{name}/cancel")
        assert "only background responses can be cancelled" in problem_of(answer, 400)
        assert "resp_none" in problem_of(server.post(f"{ROUTE}/resp_none/cancel"), 404)

    def test_deleted_while_it_is_made(self, server: Server) -> None:
        name = begin_endless(server)
        assert server.client.delete(f"{ROUTE}/{name}").json()["deleted"] is True
        server.wait_until(lambda: busy_slots(server) == 0)
        for query in ("", "?stream=true"):
            problem_of(server.get(f"{ROUTE}/{name}{query}"), 404)

    def test_deleted_with_its_events(self, server: Server) -> None:
        answer = server.post(ROUTE, {**FIELDS, "input": NAME, "background": True, "stream": True})
        name = stream_events(answer.text)[0]["response"]["id"]
        assert events_of(server, name)
        assert server.client.delete(f"{ROUTE}/{name}").status_code == 200
        problem_of(server.get(f"{ROUTE}/{name}?stream=true"), 404)


class TestStreamed:
    def test_goes_on_without_its_reader(self, server: Server) -> None:
        with client_of(server) as client:
            stream = client.responses.create(input=NAME, background=True, stream=True, **FIELDS)
            read = [next(stream) for _ in range(4)]
            stream.close()
            assert [event.sequence_number for event in read] == [0, 1, 2, 3]
            assert [event.type for event in read[:3]] == [
                "response.created",
                "response.queued",
                "response.in_progress",
            ]
            name = read[0].response.id
            rest = list(client.responses.retrieve(name, stream=True, starting_after=3))
            assert rest[0].sequence_number == 4
            assert rest[-1].type == "response.completed"
            assert rest[-1].response.id == name
            kept = client.responses.retrieve(name)
            assert kept.output_text == rest[-1].response.output_text

    def test_for_several_at_once(self, server: Server) -> None:
        """One leaves, one comes late, one reads all: each gets every event once."""
        begun = server.post(ROUTE, {**FIELDS, "input": NAME, "background": True, "stream": True})
        first = stream_events(begun.text)
        name = first[0]["response"]["id"]
        assert numbers(first) == list(range(len(first)))
        assert deltas(first) == text_of(first[-1]["response"])
        assert events_of(server, name) == first
        assert events_of(server, name, 5) == first[6:]
        assert events_of(server, name, first[-1]["sequence_number"]) == []

    def test_live(self, server: Server) -> None:
        body = {**FIELDS, "input": NAME, "background": True, "stream": True, **ENDLESS}
        with server.client.stream("POST", ROUTE, json=body) as begun:
            lines = begun.iter_lines()
            created = next(line for line in lines if line.startswith("data: "))
            name = stream_events(f"{created}\n\n")[0]["response"]["id"]
            server.wait_until(lambda: busy_slots(server) > 0)
            with server.client.stream("GET", f"{ROUTE}/{name}?stream=true&starting_after=9") as second:
                cancel_when = next(line for line in second.iter_lines() if line.startswith("data: "))
                assert stream_events(f"{cancel_when}\n\n")[0]["sequence_number"] == 10
            assert cancel(server, name)["status"] == "cancelled"
            rest = stream_events("\n\n".join(line for line in lines if line.startswith("data: ")))
        assert rest[-1]["type"] == "response.cancelled"
        assert numbers(rest) == list(range(1, len(rest) + 1))
        assert events_of(server, name, rest[-2]["sequence_number"]) == [rest[-1]]

    def test_made_anew_after_a_restart(self, start_server: StartServer, tmp_path: Path) -> None:
        server = start_server([*memory_options(tmp_path), *ENDLESS_OPTIONS])
        answer = server.post(ROUTE, {**FIELDS, "input": NAME, "background": True, "stream": True})
        before = stream_events(answer.text)
        name = before[0]["response"]["id"]
        kill_and_start(server)
        after = events_of(server, name)
        assert deltas(after) == deltas(before)
        assert {event["type"] for event in after} == {event["type"] for event in before}
        [last] = events_of(server, name, before[-2]["sequence_number"])
        for event in (after[-1], last):
            assert event["response"] == before[-1]["response"]
            assert event["sequence_number"] == before[-1]["sequence_number"]

    def test_what_cannot_be(self, server: Server) -> None:
        for name in (ask(server, NAME)["id"], begin(server)["id"]):
            ended(server, name)
            assert '"background": true and "stream": true' in problem_of(
                server.get(f"{ROUTE}/{name}?stream=true"), 400
            )
            assert "'stream'" in problem_of(server.get(f"{ROUTE}/{name}?stream=maybe"), 400)


class TestLimits:
    def test_they_wait_for_their_turn(self, start_server: StartServer, tmp_path: Path) -> None:
        options = ["--atlas-background-running", "1", "--atlas-background-waiting", "1"]
        server = start_server([*memory_options(tmp_path), *ENDLESS_OPTIONS, *options])
        running = begin_endless(server)
        waiting = begin(server, **ENDLESS)["id"]
        answer = server.post(ROUTE, {**FIELDS, "input": NAME, "background": True})
        assert "--atlas-background-waiting" in problem_of(answer, 429)
        assert int(answer.headers["Retry-After"]) > 0
        assert shown(server, waiting)["status"] == "queued"
        assert (in_background(server)["running"], in_background(server)["waiting"]) == (1, 1)
        assert text_of(ask(server, NAME))  # clients have the other slot
        last = server.get("/v1/atlas/metrics/prometheus").text
        assert 'atlas_background_responses{state="waiting"} 1' in last
        assert cancel(server, waiting)["status"] == "cancelled"
        third = begin(server)["id"]
        answer = server.post("/v1/atlas/config", {"settings": {"background_running": 2}})
        assert answer.status_code == 200, answer.text
        assert ended(server, third)["status"] == "completed"
        assert shown(server, running)["status"] == "in_progress"

    def test_of_a_tenant(self, start_server: StartServer, tmp_path: Path) -> None:
        server = start_server([*key_options(tmp_path), *ENDLESS_OPTIONS])
        ada, ben = with_key(server, ADA), with_key(server, BEN)
        name = begin_endless(ada)
        for other in (ben, with_key(server, ADMIN)):
            problem_of(other.get(f"{ROUTE}/{name}"), 404)
            problem_of(other.get(f"{ROUTE}/{name}?stream=true"), 404)
            problem_of(other.post(f"{ROUTE}/{name}/cancel"), 404)
            problem_of(other.client.delete(f"{ROUTE}/{name}"), 404)
        assert cancel(ada, name)["status"] == "cancelled"

    def test_rates_count_it_once(self, start_server: StartServer, tmp_path: Path) -> None:
        rates = ["--api-key", "k", "--atlas-key-requests-per-s", "0.001"]
        server = with_key(start_server([*memory_options(tmp_path), *rates]), "k")
        assert ended(server, begin(server)["id"])["status"] == "completed"
        problem_of(server.post(ROUTE, {**FIELDS, "input": NAME, "background": True}), 429)


class TestRefused:
    def test_what_is_not_kept(self, server: Server) -> None:
        for fields, reason in (
            ({"store": False}, '"store": false'),
            ({"background": "yes"}, "true or false"),
        ):
            problem = problem_of(
                server.post(ROUTE, {**FIELDS, "input": NAME, "background": True, **fields}), 400
            )
            assert "'background'" in problem
            assert reason in problem

    def test_without_a_memory_path(self, start_server: StartServer) -> None:
        server = start_server()
        problem = problem_of(server.post(ROUTE, {**FIELDS, "input": NAME, "background": True}), 400)
        assert "'background'" in problem
        assert "--atlas-memory-path" in problem

    def test_what_is_wrong_is_said_at_once(self, server: Server) -> None:
        wrong = [{"type": "message", "role": "user"}]
        body = {**FIELDS, "input": wrong, "background": True}
        waited = server.post(ROUTE, {**body, "background": False})
        assert problem_of(server.post(ROUTE, body), waited.status_code) == problem_of(waited, 400)

    def test_going_on_from_what_has_not_ended(self, server: Server) -> None:
        name = begin_endless(server)
        answer = server.post(ROUTE, {**FIELDS, "input": "Hi", "previous_response_id": name})
        assert "has not ended yet" in problem_of(answer, 400)
        cancel(server, name)

    def test_compacting(self, server: Server) -> None:
        assert "compacts no conversations" in problem_of(
            server.post(f"{ROUTE}/compact", {"input": "Hi"}), 400
        )


# Says what it was asked about, and takes a name out of all that is answered.
HOOKS = """
from atlas_plugin import Modify, hookimpl

seen = []


@hookimpl
def on_request(request, body):
    seen.append("request")
    return Modify({**body, "metadata": {"seen": "yes"}})


@hookimpl
def on_response(request, answer):
    seen.append("response")
    part = answer["output"][0]["content"][0]
    part["text"] = part["text"].replace("Thank", "T.")
    return Modify(answer)


@hookimpl
def on_finished(request, record):
    seen.append(f"finished {record['tokens']['answer'] > 0}")


@hookimpl
def register_routes(routes):
    @routes.get("/v1/atlas/x/seen")
    def shown(request):
        return {"seen": seen}
"""


def test_hooks_are_asked_once(start_server: StartServer, tmp_path: Path) -> None:
    plugin = ["--atlas-plugin", write_plugin(tmp_path, HOOKS)]
    server = start_server([*memory_options(tmp_path), *plugin])
    response = ended(server, begin(server)["id"])
    assert response["metadata"] == {"seen": "yes"}
    assert "T." in text_of(response)
    assert "Thank" not in text_of(response)
    server.wait_until(lambda: len(server.get("/v1/atlas/x/seen").json()["seen"]) == 3)
    assert server.get("/v1/atlas/x/seen").json()["seen"] == ["request", "response", "finished True"]


def test_tokens_of_what_it_goes_on_from_are_counted(server: Server) -> None:
    first = ask(server, NAME)
    second = {"model": "any", "input": "Thank you.", "previous_response_id": first["id"]}
    counted = server.post(f"{ROUTE}/input_tokens", second).json()
    assert counted["object"] == "response.input_tokens"
    assert counted["input_tokens"] == server.post(ROUTE, {**FIELDS, **second}).json()["usage"]["input_tokens"]
    missing = server.post(f"{ROUTE}/input_tokens", {**second, "previous_response_id": "resp_none"})
    assert "resp_none" in problem_of(missing, 400)


def test_the_sdk_knows_what_it_gets(server: Server) -> None:
    with client_of(server) as client:
        with pytest.raises(openai.BadRequestError):
            client.responses.cancel(client.responses.create(input=NAME, **FIELDS).id)
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve("resp_none", stream=True)
