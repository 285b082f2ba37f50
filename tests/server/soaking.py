"""Clients that send good and bad requests at random, and what the server holds while they do.

Each checks that its answers are documented ones.
"""

import random
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from typing import Any

import httpx

from tests.server.completions import BODIES, ROUTES, only_atlas
from tests.server.conversations import filler
from tests.server.harness import Server, stream_events

CLIENTS = 32
SLOTS = 4
SEED = 20261122

# Fewer than there are clients, and a short wait: some are refused.
LIMITS = ["--atlas-max-concurrent", "12", "--atlas-pool-timeout-ms", "300"]

ENDLESS = {"n_predict": 100_000, "max_tokens": 100_000, "ignore_eos": True, "stream": True}
CHAT = "/v1/chat/completions"
TYPES = {400: "validation_error", 429: "rate_limit_error", 503: "service_unavailable"}


def user(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "max_tokens": 8}


class Turnstile:
    """Where each client passes before a request, and where somebody can hold them all."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._is_closed = False
        self._working = 0

    @contextmanager
    def passed(self) -> Iterator[None]:
        """While a client makes a request; waits as long as the turnstile is closed."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_closed)
            self._working += 1
        try:
            yield
        finally:
            with self._changed:
                self._working -= 1
                self._changed.notify_all()

    @contextmanager
    def closed(self) -> Iterator[None]:
        """While no client makes a request; waits for those that do."""
        with self._changed:
            self._is_closed = True
            self._changed.wait_for(lambda: not self._working)
        try:
            yield
        finally:
            with self._changed:
                self._is_closed = False
                self._changed.notify_all()


class Client:
    """One of many clients, with contexts and sessions of its own and some that all share."""

    def __init__(self, server: Server, number: int, seen: Counter[str]) -> None:
        self._server = server
        self._number = number
        self._choose = random.Random(SEED + number)
        self._seen = seen
        self.saved: dict[str, dict[str, Any]] = {}
        self._actions: list[Callable[[], None]] = [
            self._stock, self._session, self._passing_session, self._no_session, self._history,
            self._stream, self._cut_stream,
            self._cut_stream_of_a_conversation, self._leave_while_waiting, self._batch, self._choices,
            self._bad_json, self._bad_field, self._too_long, self._half_a_request, self._save, self._load,
            self._delete, self._list, self._pin, self._flush, self._look,
        ]  # fmt: skip

    def work(self, stopping: threading.Event, turnstile: Turnstile) -> None:
        """One request after the other."""
        while not stopping.is_set():
            action = self._choose.choice(self._actions)
            with turnstile.passed():
                action()
            self._seen[action.__name__] += 1

    def _post(self, path: str, body: Any, *statuses: int, **options: Any) -> httpx.Response:
        answer = self._server.post(path, body, **options)
        assert answer.status_code in statuses, f"{path} {body!r:.300}: {answer.status_code} {answer.text}"
        self._seen[f"{answer.status_code}"] += 1
        if answer.status_code in (429, 503):
            assert answer.json()["error"]["type"] == TYPES[answer.status_code]
        return answer

    def _text(self) -> str:
        return f"My name is {self._choose.randrange(40)}. {filler(self._choose.randrange(40))}"

    def _shared_session(self) -> str:
        return f"shared-{self._choose.randrange(6)}"

    def _stock(self) -> None:
        path = self._choose.choice(ROUTES)
        assert "atlas" not in self._post(path, BODIES[path], 200).json()

    def _session(self) -> None:
        atlas = {"session_id": f"own-{self._number}", "memory_layers": self._choose.randint(1, 10)}
        answer = self._post(CHAT, {**user(self._text()), "atlas": atlas}, 200, 429, 503)
        if answer.status_code == 200:
            assert answer.json()["atlas"]["session_id"] == atlas["session_id"]
            assert answer.json()["atlas"]["degraded"] is False

    def _passing_session(self) -> None:
        name = f"passing-{self._number}-{self._choose.randrange(1_000_000)}"
        answer = self._post(CHAT, {**user(self._text()), "atlas": {"session_id": name}}, 200, 429, 503)
        if answer.status_code == 200:
            self._post("/v1/atlas/memory/delete", {"context_id": name}, 200)

    def _no_session(self) -> None:
        answer = self._post(CHAT, {**user(self._text()), "atlas": {}}, 200, 429)
        if answer.status_code == 200:
            atlas = answer.json()["atlas"]
            assert not atlas["degraded"] or atlas["reason"].startswith("no context became free in time")
            self._seen["degraded"] += atlas["degraded"]

    def _history(self) -> None:
        atlas = {"session_id": self._shared_session(), "history": "server"}
        answer = self._post(CHAT, {**user("What is my name?"), "atlas": atlas}, 200, 400, 429, 503)
        if answer.status_code == 400:
            assert answer.json()["error"]["type"] == "exceed_context_size_error"
            self._post("/v1/atlas/memory/delete", {"context_id": atlas["session_id"]}, 200, 404)

    def _stream(self) -> None:
        path = self._choose.choice(ROUTES)
        body = {**BODIES[path], "stream": True, "atlas": {"session_id": self._shared_session()}}
        answer = self._post(path, body, 200, 429, 503)
        if answer.status_code == 200:
            assert only_atlas(stream_events(answer.text))["prompt_tokens"] > 0

    def _cut_stream(self, **headers: str) -> None:
        session = {"atlas": {"session_id": self._shared_session()}} if self._choose.random() < 0.5 else {}
        body = {**user(self._text()), **ENDLESS, **session}
        with self._server.client.stream("POST", CHAT, json=body, headers=headers) as answer:
            assert answer.status_code in (200, 429, 503)
            for _ in zip(range(self._choose.randrange(20)), answer.iter_lines(), strict=False):
                pass

    def _cut_stream_of_a_conversation(self) -> None:
        name = f"own-{self._number}"
        self._cut_stream(**{"X-Conversation-Id": name})
        answer = self._server.client.delete("/v1/stream", params={"conv_id": name})
        assert answer.status_code in (200, 204, 404), answer.text

    def _leave_while_waiting(self) -> None:
        atlas = {"session_id": self._shared_session(), "history": self._choose.choice(["client", "server"])}
        body = {**user(self._text()), "max_tokens": 200, "ignore_eos": True, "atlas": atlas}
        with suppress(httpx.ReadTimeout):
            self._post(CHAT, body, 200, 400, 429, 503, timeout=self._choose.random() / 5)

    def _batch(self) -> None:
        numbers = [self._choose.randrange(1000) for _ in range(5)]
        body = {"prompt": [f"{number} {filler(2)}" for number in numbers], "n_predict": 2}
        atlas = {"batch_size": self._choose.randint(1, 8)}
        answer = self._post("/completion", {**body, "atlas": atlas}, 200, 429)
        if answer.status_code == 200:
            prompts = [each["prompt"] for each in answer.json()]
            assert [f" {number} " in f" {prompt}" for number, prompt in zip(numbers, prompts, strict=True)]

    def _choices(self) -> None:
        body = {**user(self._text()), "n": 3, "atlas": {"batch_size": 1}}
        answer = self._post(CHAT, body, 200, 429)
        if answer.status_code == 200:
            assert [choice["index"] for choice in answer.json()["choices"]] == [0, 1, 2]

    def _bad_json(self) -> None:
        path = self._choose.choice([*ROUTES, "/v1/atlas/memory/save"])
        answer = self._server.client.post(path, content=b'{"atlas": {"session_id": ')
        assert answer.status_code == 400, answer.text

    def _bad_field(self) -> None:
        path = self._choose.choice(ROUTES)
        body = {**BODIES[path], "stream": self._choose.random() < 0.5, "atlas": {"memory_layers": 11}}
        message = self._post(path, body, 400).json()["error"]["message"]
        assert message == "Validation error in field 'atlas.memory_layers': value must be between 1 and 10"

    def _too_long(self) -> None:
        objects: list[dict[str, Any]] = [{}, {"atlas": {}}, {"atlas": {"session_id": self._shared_session()}}]
        atlas = self._choose.choice(objects)
        answer = self._post("/completion", {"prompt": filler(400), "n_predict": 1, **atlas}, 400, 429, 503)
        if answer.status_code == 400:
            assert answer.json()["error"]["type"] == "exceed_context_size_error"

    def _half_a_request(self) -> None:
        with socket.create_connection(("127.0.0.1", self._server.port), timeout=30) as connection:
            connection.sendall(b"POST /completion HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{")

    def _save(self) -> None:
        name = f"saved-{self._number}-{self._choose.randrange(5)}"
        state = {"of": self._number, "n": self._choose.random()}
        self._post("/v1/atlas/memory/save", {"context_id": name, "state": state}, 200)
        self.saved[name] = state

    def _load(self) -> None:
        for name, state in self.saved.items():
            answer = self._post("/v1/atlas/memory/load", {"context_id": name}, 200)
            assert answer.json()["data"]["state"] == state
        self._post("/v1/atlas/memory/load", {"context_id": "never-saved"}, 404)

    def _delete(self) -> None:
        if self.saved:
            name = self._choose.choice(list(self.saved))
            self._post("/v1/atlas/memory/delete", {"context_id": name}, 200)
            del self.saved[name]
        self._post("/v1/atlas/memory/delete", {"context_id": self._shared_session()}, 200, 404)

    def _list(self) -> None:
        page = self._post("/v1/atlas/memory/list", {"limit": 1000}, 200).json()["data"]["contexts"]
        assert {entry["context_id"] for entry in page} >= self.saved.keys()

    def _pin(self) -> None:
        operation = self._choose.choice(["pin", "unpin"])
        self._post(f"/v1/atlas/memory/{operation}", {"session_id": self._shared_session()}, 200, 404)

    def _flush(self) -> None:
        self._post("/v1/atlas/memory/flush", {"timeout_s": 60}, 200)

    def _look(self) -> None:
        for path in ("status", "config", "plugins", "openapi.json"):
            answer = self._server.get(f"/v1/atlas/{path}")
            assert answer.status_code == 200, answer.text


def pool(server: Server) -> dict[str, int]:
    """How many contexts are in use, and requests wait and go on."""
    found = server.get("/v1/atlas/status").json()["data"]["pool"]
    return {name: found[name] for name in ("in_use", "waiting", "in_progress")}


IDLE = {"in_use": 0, "waiting": 0, "in_progress": 0}


def soak(
    clients: list[Client],
    seconds: float,
    turnstile: Turnstile | None = None,
    until: Callable[[], bool] = lambda: True,
) -> None:
    """All clients at once, for so long and until a condition holds.

    Raises what the first of them raised, once the others have their last answers.
    """
    stopping = threading.Event()
    turnstile = turnstile or Turnstile()
    with ThreadPoolExecutor(len(clients)) as threads:
        running = [threads.submit(client.work, stopping, turnstile) for client in clients]
        failed = wait(running, seconds, FIRST_EXCEPTION).done
        while not failed and not until():
            failed = wait(running, 0.1, FIRST_EXCEPTION).done
        stopping.set()
        for client in running:
            client.result()
