"""Layer 3 on the stores that people run: Redis, Valkey and S3, and what a fleet's secret hides there."""

import os
import random
import secrets
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.conftest import StartServer
from tests.server.conversations import ASK_CITY, ASK_NAME, ONE_THREAD, Conversation, cold_chat
from tests.server.harness import Server
from tests.server.test_shared_memory import N_ITEMS, REUSED, assert_found, first_turn, share, status
from tests.stores import S3_KEYS, RespServer, SeaweedS3, Store, valkey_server
from tests.tiers.driver import tier_of

PREFIX = b"atlas:1:"
SESSIONS = int(os.environ.get("ATLAS_TEST_FLEET_SESSIONS", "8"))
# Of a turn: its prompt as tokens, in the order of bytes in which they would lie in a file.
N_TOKENS = 8

StartSharing = Callable[..., Server]


@pytest.fixture
def start_sharing(start_server: StartServer, tmp_path: Path) -> StartSharing:
    """Starts servers that share what a URL names, each with a memory path of its own."""

    def start(name: str, url: str, *more: str | Path, **options: Any) -> Server:
        paths = ["--atlas-memory-path", tmp_path / name, "--atlas-shared-url", url]
        return start_server([*ONE_THREAD, *paths, *more], **options)

    return start


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RespServer]:
    with RespServer(tmp_path) as store:
        yield store


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_bytes(secrets.token_bytes(32))
    path.chmod(0o600)
    return path


def test_compressed_state_is_smaller_and_read_by_all(
    start_sharing: StartSharing, redis: RespServer, secret: Path
) -> None:
    """By servers that do not compress, too. Needs a build with libzstd (apt-get install libzstd-dev)."""
    first = start_sharing("a", redis.url, "--atlas-shared-compression", "zstd")
    told = first_turn(first)
    compressed = {key: value for key, value in stored(redis).items() if value.startswith(b"ATLASKVZ")}
    # the header of the entry's file follows the 24 bytes of the head: docs/memory-format.md
    plain = sum(
        struct.unpack_from("<I", value, 12)[0] + struct.unpack_from("<Q", value, 24 + 32)[0]
        for value in compressed.values()
    )
    assert sum(map(len, compressed.values())) < 0.95 * plain
    assert status(first)["written"]["bytes"] == sum(map(len, stored(redis).values()))
    second = start_sharing("b", redis.url)
    assert_found(second, told)
    assert status(second)["damaged"] == 0
    # and hidden behind the fleet's secret
    redis.command("FLUSHALL")
    words = ["--atlas-shared-compression", "zstd", "--atlas-shared-secret-file", secret]
    told = first_turn(start_sharing("c", redis.url, *words), 2)
    assert {value[:8] for value in stored(redis).values()} == {b"ATLASEAL"}
    assert_found(start_sharing("d", redis.url, "--atlas-shared-secret-file", secret), told)


def stored(store: RespServer) -> dict[bytes, bytes]:
    """All keys and values."""
    client = store.client()
    return {key: client.get(key) for key in client.scan_iter()}


@pytest.mark.parametrize("kind", ["redis", "valkey", "s3"])
def test_a_conversation_goes_on_with_another_server(
    start_sharing: StartSharing, tmp_path: Path, kind: str
) -> None:
    stores: dict[str, Callable[[], Store]] = {
        "redis": lambda: RespServer(tmp_path),
        "valkey": lambda: RespServer(tmp_path, valkey_server()),
        "s3": lambda: SeaweedS3(tmp_path),
    }
    with stores[kind]() as store:
        url = store.url  # type: ignore[attr-defined]
        # S3 is slow on a busy machine; what is tested is that it is found.
        first, second = (
            start_sharing(name, url, "--atlas-shared-timeout-ms", "60000", environment=S3_KEYS)
            for name in ("a", "b")
        )
        if kind == "s3":  # a bucket has to be there
            with tier_of(url, S3_KEYS) as tier:
                assert tier.put("atlas:first", 5).failure is None
        told = first_turn(first)
        # of S3 no more than blocks are asked for
        assert_found(second, told, 0.85 if kind == "s3" else REUSED)
        assert status(second)["damaged"] == 0


def test_what_a_fleet_has_in_the_store_is_hidden(
    start_sharing: StartSharing, redis: RespServer, secret: Path
) -> None:
    options = ["--atlas-shared-secret-file", secret]
    first, second = (start_sharing(name, redis.url, *options) for name in ("a", "b"))
    other = start_sharing("c", redis.url)
    told = first_turn(first)
    told_elsewhere = list(told.messages)
    values = stored(redis)
    assert len(values) == status(first)["written"]["entries"] > 0
    text = "".join(message["content"] for message in told.messages)
    tokens = first.post("/tokenize", {"content": text}).json()["tokens"]
    pieces = [struct.pack(f"<{N_TOKENS}i", *tokens[at : at + N_TOKENS]) for at in range(8, 200, N_TOKENS)]
    plain = {**stored_by(start_sharing, redis)}
    assert any(piece in value for value in plain.values() for piece in pieces)  # it can be found where it is
    for key, value in values.items():
        assert key.startswith(PREFIX)
        assert key not in plain
        assert not any(piece in value for piece in pieces)
    assert_found(second, told)

    # who has no secret finds what others without one have, and takes nothing for damaged
    told.messages = told_elsewhere
    assert told.ask(other, ASK_CITY, atlas={}).layer == 3
    assert status(other)["damaged"] == 0


def stored_by(start_sharing: StartSharing, redis: RespServer) -> dict[bytes, bytes]:
    """What a server without a secret stores of the same conversation."""
    before = stored(redis)
    first_turn(start_sharing("plain", redis.url))
    return {key: value for key, value in stored(redis).items() if key not in before}


def test_keys_share_where_the_secret_is_the_same(
    start_sharing: StartSharing, redis: RespServer, secret: Path
) -> None:
    keys = ["--api-key", "one,other"]
    options = ["--atlas-shared-secret-file", secret, *keys]
    servers = [start_sharing(name, redis.url, *options, api_key=None) for name in ("a", "b")]
    for server in servers:
        server.client.headers["Authorization"] = "Bearer one"
    told = first_turn(servers[0])
    messages = list(told.messages)
    servers[1].client.headers["Authorization"] = "Bearer other"
    assert told.ask(servers[1], ASK_CITY, atlas={}).reused == 0
    servers[1].client.headers["Authorization"] = "Bearer one"
    told.messages = messages
    assert_found(servers[1], told)


def test_values_that_were_changed_or_swapped_are_not_taken(
    start_sharing: StartSharing, redis: RespServer, secret: Path
) -> None:
    options = ["--atlas-shared-secret-file", secret]
    told = first_turn(start_sharing("a", redis.url, *options))
    client, values = redis.client(), stored(redis)
    for key, value in zip(values, [*list(values.values())[1:], b"nonsense"], strict=True):
        client.set(key, value)
    second = start_sharing("b", redis.url, *options)
    answer = told.ask(second, ASK_CITY, atlas={})
    assert (answer.layer, answer.reused) == (0, 0)
    assert answer.text == cold_chat(second, told.messages[:-1]).text
    assert status(second)["damaged"] >= 1


def test_a_store_that_dies_and_comes_back_empty(start_sharing: StartSharing, redis: RespServer) -> None:
    first, second = (start_sharing(name, redis.url) for name in ("a", "b"))
    told = first_turn(first)
    redis.kill()
    answer = told.ask(second, ASK_CITY, atlas={})
    assert (answer.reused, answer.text) == (0, cold_chat(second, told.messages[:-1]).text)
    second.wait_until(lambda: status(second)["problem"] is not None)
    assert redis.address in status(second)["problem"]
    asked = status(second)["asked"]
    Conversation(7, N_ITEMS).ask(second, atlas={})  # while it is known to be dead nothing is asked
    assert status(second)["asked"] == asked
    redis.start()
    for server in (first, second):
        server.wait_until(lambda server=server: status(server)["problem"] is None)
    assert_found(second, first_turn(first, 3))


def test_a_wrong_password_is_named(start_sharing: StartSharing, tmp_path: Path) -> None:
    with RespServer(tmp_path, password="right") as store:
        server = start_sharing("a", f"valkey://:hunter2@{store.address}")
        answer = Conversation(1).ask(server, atlas={})
        assert answer.text
        server.wait_until(lambda: status(server)["problem"] is not None)
        assert "hunter2" not in str(status(server)) + server.log
        assert store.address in status(server)["problem"]


def test_a_store_that_others_can_reach_wants_a_secret(start_sharing: StartSharing, secret: Path) -> None:
    url = "valkey://192.0.2.1:6379"  # of documents: nobody is there
    assert start_sharing("a", url).logged("--atlas-shared-secret-file")
    assert not start_sharing("b", url, "--atlas-shared-secret-file", secret).logged(
        "--atlas-shared-secret-file"
    )


def test_turns_at_random_servers(start_sharing: StartSharing, redis: RespServer) -> None:
    source = random.Random(1)
    servers = [start_sharing(name, redis.url) for name in ("a", "b", "c")]
    chats = [Conversation(number, N_ITEMS) for number in range(SESSIONS)]
    reused = prompt = 0
    for turn in range(3):
        for chat in source.sample(chats, len(chats)):
            server = source.choice(servers)
            answer = chat.ask(server, (ASK_NAME, ASK_CITY)[turn % 2], atlas={})
            assert answer.text == cold_chat(server, chat.messages[:-1]).text
            share(server)
            if turn > 0:
                reused, prompt = reused + answer.reused, prompt + answer.prompt
    assert reused >= REUSED * prompt
    assert sum(status(server)["damaged"] for server in servers) == 0
