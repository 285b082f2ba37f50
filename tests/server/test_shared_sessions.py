"""Sessions across servers: records of `history: server` in a store that several servers share."""

import random
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.server.completions import complete
from tests.server.conformance import data_of, operate
from tests.server.conftest import StartServer
from tests.server.conversations import ASK_CITY, ASK_NAME, GREEDY, ONE_THREAD, Message, filler
from tests.server.harness import Server
from tests.server.test_conversations_api import ROOT as CONVERSATIONS
from tests.server.test_conversations_api import items, respond, text_of
from tests.server.test_shared_stores import secret  # noqa: F401 (a fixture)
from tests.stores import S3_KEYS, RespServer, SeaweedS3, Store, valkey_server
from tests.tiers.driver import tier_of

NAME = "My name is Nora. I live in Oslo."
CHAT_ROUTE = "/v1/chat/completions"
REUSED = 0.95
N_ITEMS = 60
SOON = ["--atlas-shared-timeout-ms", "1000"]  # for tests in which it passes

StartSharing = Callable[..., Server]


def user(text: str) -> Message:
    return {"role": "user", "content": text}


@pytest.fixture
def start_sharing(start_server: StartServer, tmp_path: Path) -> StartSharing:
    """Starts servers that share what a URL names, each with a memory path of its own."""

    def start(name: str, url: str, *more: str | Path, **options: Any) -> Server:
        paths = ["--atlas-memory-path", tmp_path / name, "--atlas-shared-url", url]
        return start_server([*ONE_THREAD, "-np", "4", *paths, *more], **options)

    return start


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RespServer]:
    with RespServer(tmp_path) as store:
        yield store


def ask(server: Server, session: str, *messages: Message) -> dict[str, Any]:
    """The answer to messages of a session whose record the server has."""
    atlas = {"session_id": session, "history": "server"}
    body: dict[str, Any] = complete(server, CHAT_ROUTE, messages=messages, **GREEDY, atlas=atlas)
    return body


def say(server: Server, session: str, text: str) -> str:
    body = ask(server, session, user(text))
    assert body["atlas"]["degraded"] is False, body["atlas"]["reason"]
    content: str = body["choices"][0]["message"]["content"]
    return content


def record(server: Server, session: str) -> list[Message]:
    loaded = data_of(operate(server, "load", {"context_id": session}))
    messages: list[Message] = loaded["session"]["conversation_history"]
    return messages


def listed(server: Server, **options: Any) -> list[str]:
    return [entry["context_id"] for entry in data_of(operate(server, "list", {**options}))["contexts"]]


def share(server: Server) -> None:
    """Wait until others know all that was answered before."""
    response = server.post("/v1/atlas/memory/flush", {"timeout_s": 60, "layer": 3})
    assert response.status_code == 200, response.text


def shared(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = server.get("/v1/atlas/status").json()["data"]["sessions"]["shared"]
    return found


def assert_whole(messages: list[Message], *texts: str) -> None:
    """Each exchange is there, once, and question and answer alternate."""
    assert [one["role"] for one in messages] == ["user", "assistant"] * (len(messages) // 2)
    assert sorted(one["content"] for one in messages[::2]) == sorted(texts)


@pytest.mark.parametrize("kind", ["valkey", "s3", "directory"])
def test_a_session_goes_on_with_another_server(
    start_sharing: StartSharing, tmp_path: Path, kind: str
) -> None:
    stores: dict[str, Callable[[], Store]] = {
        "valkey": lambda: RespServer(tmp_path, valkey_server()),
        "s3": lambda: SeaweedS3(tmp_path),
    }
    if kind == "directory":
        (tmp_path / "mount").mkdir()
        _goes_on(start_sharing, f"file://{tmp_path}/mount")
    else:
        with stores[kind]() as store:
            url: str = store.url  # type: ignore[attr-defined]
            if kind == "s3":  # a bucket has to be there
                with tier_of(url, S3_KEYS) as tier:
                    assert tier.put("atlas:first", 5).failure is None
            _goes_on(start_sharing, url, 0.8 if kind == "s3" else REUSED)  # of S3 blocks alone are asked for


def _goes_on(start_sharing: StartSharing, url: str, least: float = REUSED) -> None:
    first, second = (
        start_sharing(name, url, "--atlas-shared-timeout-ms", "60000", environment=S3_KEYS) for name in "ab"
    )
    say(first, "nora", f"{filler(N_ITEMS)} {NAME}")
    share(first)
    answer = ask(second, "nora", user(ASK_NAME))
    assert answer["choices"][0]["message"]["content"] == "Your name is Nora."
    atlas = answer["atlas"]
    assert (atlas["degraded"], atlas["layer"]) == (False, 3)
    assert atlas["reused_tokens"] >= least * atlas["prompt_tokens"]
    assert say(first, "nora", "Thanks. What is my name?")
    assert say(second, "nora", ASK_NAME) == "Your name is Nora."
    assert record(first, "nora") == record(second, "nora")
    assert len(record(first, "nora")) == 8
    assert listed(second) == listed(first) == ["nora"]
    assert (shared(second)["problem"], shared(second)["damaged"], shared(second)["waiting"]) == (None, 0, 0)


def test_at_the_same_moment(start_sharing: StartSharing, redis: RespServer) -> None:
    servers = [start_sharing(name, redis.url) for name in "ab"]
    said: list[str] = []

    def talk(server: Server, name: str) -> None:
        for number in range(5):
            text = f"I am {name}{number}."
            said.append(text)
            say(server, "busy", text)

    threads = [
        threading.Thread(target=talk, args=(server, f"{at}{name}"))
        for at, server in enumerate(servers)
        for name in "xy"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(said) == 20
    assert_whole(record(servers[0], "busy"), *said)
    assert record(servers[0], "busy") == record(servers[1], "busy")
    assert sum(shared(server)["contested"] for server in servers) > 0
    for server in servers:  # and it can be gone on with
        say(server, "busy", ASK_NAME)


def test_a_deletion_is_one_everywhere(start_sharing: StartSharing, redis: RespServer) -> None:
    first, second = (start_sharing(name, redis.url, *SOON) for name in "ab")
    say(first, "nora", NAME)
    say(second, "nora", ASK_NAME)
    data_of(operate(first, "delete", {"context_id": "nora"}))
    assert operate(second, "load", {"context_id": "nora"}).status_code == 404
    assert listed(second) == []
    assert not [key for key in redis.client().scan_iter() if b":turn." in key]
    say(second, "nora", "Who am I?")
    assert_whole(record(first, "nora"), "Who am I?")

    # What is deleted while the store is away, does not come back with it.
    redis.stop()
    data_of(operate(first, "delete", {"context_id": "nora"}))
    assert ask(second, "nora", user(ASK_NAME))["atlas"]["degraded"] is True
    redis.go_on()
    for server in (first, second):
        server.wait_until(lambda server=server: shared(server)["problem"] is None)
        share(server)
    assert operate(first, "load", {"context_id": "nora"}).status_code == 404
    assert operate(second, "load", {"context_id": "nora"}).status_code == 404


@pytest.mark.parametrize("comes_back", ["empty", "as it was"])
def test_a_store_that_dies_and_comes_back(
    start_sharing: StartSharing, redis: RespServer, comes_back: str
) -> None:
    first, second = (start_sharing(name, redis.url, *SOON) for name in "ab")
    say(first, "nora", NAME)
    say(second, "nora", "Thanks.")
    redis.kill() if comes_back == "empty" else redis.stop()
    answers = {}
    for server, text in ((first, ASK_NAME), (second, ASK_CITY)):
        answers[text] = ask(server, "nora", user(text))
        assert answers[text]["atlas"]["degraded"] is True
        assert "this server's own for now" in answers[text]["atlas"]["reason"]
        document = server.get("/v1/atlas/status").json()
        assert document["data"]["sessions"]["shared"]["waiting"] == 1
        assert any("not shared yet" in problem for problem in document["problems"])
        server.wait_until(lambda server=server: shared(server)["problem"] is not None)
        assert server.logged("sessions are not shared now")
    # What was said there is known, here and there.
    assert answers[ASK_CITY]["choices"][0]["message"]["content"] == "You live in Oslo."
    redis.start() if comes_back == "empty" else redis.go_on()
    for server in (first, second):
        server.wait_until(lambda server=server: shared(server)["problem"] is None)
        share(server)
    assert_whole(record(first, "nora"), NAME, "Thanks.", ASK_NAME, ASK_CITY)
    assert record(first, "nora") == record(second, "nora")
    assert record(first, "nora")[0]["content"] == NAME
    metrics = first.get("/v1/atlas/metrics/prometheus").text
    assert "atlas_shared_turns_waiting 0" in metrics
    assert "atlas_shared_sessions_up 1" in metrics


def test_kill_9_between_the_answer_and_the_store(
    start_sharing: StartSharing, redis: RespServer, tmp_path: Path
) -> None:
    first, second = (start_sharing(name, redis.url, "--atlas-shared-timeout-ms", "60000") for name in "ab")
    say(first, "nora", NAME)
    redis.command("CLIENT", "PAUSE", 100_000, "WRITE")  # reads are answered

    def is_here() -> bool:
        with closing(sqlite3.connect(tmp_path / "a" / "contexts.sqlite3")) as rows:
            return rows.execute("SELECT 1 FROM turns WHERE number IS NULL").fetchone() is not None

    def try_to_ask() -> None:
        with pytest.raises(Exception):  # noqa: B017 (however the connection ends)
            ask(first, "nora", user(ASK_NAME))

    asking = threading.Thread(target=try_to_ask)
    asking.start()
    first.wait_until(is_here)
    first.kill()
    asking.join()
    redis.command("CLIENT", "UNPAUSE")
    say(second, "nora", ASK_CITY)
    first.start()
    share(first)
    assert_whole(record(second, "nora"), NAME, ASK_CITY, ASK_NAME)
    assert record(first, "nora") == record(second, "nora")


def test_what_a_fleet_says_is_hidden_and_cannot_be_moved(
    start_sharing: StartSharing,
    redis: RespServer,
    secret: Path,  # noqa: F811
) -> None:
    first, second = (start_sharing(name, redis.url, "--atlas-shared-secret-file", secret) for name in "ab")
    say(first, "nora", NAME)
    say(first, "nora", "Thanks.")
    say(first, "bela", "My name is Bela.")
    share(first)
    client = redis.client()
    turns = sorted(key for key in client.scan_iter() if b":turn." in key)
    assert len(turns) == 3
    for key in client.scan_iter():
        if client.type(key) == b"string":
            assert not any(word in key + client.get(key) for word in (b"Nora", b"nora", b"messages"))
    # One turn in the place of another, of this session or of another, is refused.
    values = [client.get(key) for key in turns]
    for key, value in zip(turns, [*values[1:], values[0]], strict=True):
        client.set(key, value)
    for session in ("nora", "bela"):
        atlas = {"session_id": session, "history": "server"}
        answer = second.post(CHAT_ROUTE, {"messages": [user(ASK_NAME)], **GREEDY, "atlas": atlas})
        assert answer.status_code == 500
        assert "is damaged" in answer.json()["error"]["message"]
    assert shared(second)["damaged"] == 2
    assert "atlas_shared_records_damaged_total 2" in second.get("/v1/atlas/metrics/prometheus").text
    data_of(operate(second, "delete", {"context_id": "nora"}))
    say(second, "nora", "Hello.")
    assert_whole(record(first, "nora"), "Hello.")


def test_tenants_see_their_own(
    start_sharing: StartSharing,
    redis: RespServer,
    secret: Path,  # noqa: F811
) -> None:
    options = ["--atlas-shared-secret-file", secret, "--api-key", "one,other"]
    servers = [start_sharing(name, redis.url, *options, api_key=None) for name in "ab"]

    def be(key: str) -> None:
        for server in servers:
            server.client.headers["Authorization"] = f"Bearer {key}"

    for key in ("one", "other"):
        be(key)
        for name in ("same", key):
            say(servers[0], name, f"I am {key}.")
        share(servers[0])
    for key in ("one", "other"):
        be(key)
        assert sorted(listed(servers[1])) == sorted([key, "same"])
        assert_whole(record(servers[1], "same"), f"I am {key}.")
        assert len(listed(servers[1], limit=1)) == 1


def test_turns_at_random_servers(start_sharing: StartSharing, redis: RespServer) -> None:
    source = random.Random(3)
    servers = [start_sharing(name, redis.url) for name in "ab"]
    sessions = [f"s{number}" for number in range(6)]
    for turn in range(4):
        for session in source.sample(sessions, len(sessions)):
            answer = say(source.choice(servers), session, f"I am {session}.{turn}.")
            assert answer
    for session in sessions:
        messages = record(source.choice(servers), session)
        assert [one["content"] for one in messages[::2]] == [f"I am {session}.{turn}." for turn in range(4)]
        assert all(first["role"] != second["role"] for first, second in pairwise(messages))
    for server in servers:
        assert listed(server) == sessions


def test_conversations_of_openais_api(start_sharing: StartSharing, tmp_path: Path) -> None:
    place = tmp_path / "mount"
    place.mkdir()
    a, b = (start_sharing(name, f"file://{place}") for name in "ab")
    made = a.post(CONVERSATIONS, {"items": [user(NAME)], "metadata": {"topic": "names"}}).json()
    path = f"{CONVERSATIONS}/{made['id']}"
    assert b.get(path).json() == made
    assert text_of(respond(b, made["id"], ASK_NAME)) == "Your name is Nora."
    first, *rest = items(a, made["id"])
    assert [item["role"] for item in rest] == ["user", "assistant"]
    assert a.client.delete(f"{path}/items/{first['id']}").status_code == 200
    assert items(b, made["id"]) == rest
    assert b.get(path).json() == made
    assert not [file for file in place.rglob("*") if file.is_file() and NAME.encode() in file.read_bytes()]
    assert b.client.delete(path).status_code == 200
    assert a.get(path).status_code == 404
