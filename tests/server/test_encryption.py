"""The memory path encrypted, and tenants that are the same on all servers of a fleet."""

import base64
import secrets
import sqlite3
import struct
import time
from pathlib import Path
from typing import Any

import pytest

from tests.server.conftest import StartServer
from tests.server.conversations import (
    ASK_CITY,
    ASK_NAME,
    Conversation,
    block_files,
    flush,
    kill_and_start,
    memory_options,
    memory_status,
    tokenize,
    wait_for_memory,
)
from tests.server.harness import Server
from tests.server.keys import ADA, ADMIN, BEN, with_key

SESSION: dict[str, Any] = {"atlas": {"session_id": "ada"}}
SAVED = {"note": "the parrot is called Xanthippe"}


def key_file(directory: Path, name: str = "key") -> Path:
    path = directory / name
    path.write_bytes(secrets.token_bytes(32))
    path.chmod(0o600)
    return path


def encrypted(directory: Path, key: Path) -> list[str | Path]:
    return [*memory_options(directory), "--atlas-encryption-key-file", key]


def memory_path(options: list[str | Path]) -> Path:
    return Path(options[options.index("--atlas-memory-path") + 1])


def refused(directory: Path, *arguments: str | Path) -> str:
    """The log of a server that must not start."""
    server = Server(arguments, directory=directory)
    server.spawn()
    assert server.wait() != 0
    return server.log


def everything(path: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}


def live(server: Server, number: int) -> Conversation:
    """A conversation with a session, a saved context beside it, and all of it durable."""
    told = Conversation(number, n_items=80)
    told.ask(server, **SESSION)
    answer = server.post("/v1/atlas/memory/save", {"context_id": "note", "state": SAVED})
    assert answer.status_code == 200, answer.text
    flush(server)
    return told


def shown(path: Path, server: Server, told: Conversation) -> list[str]:
    """Which files below the path show text or tokens of the conversation, or what was saved."""
    tokens = tokenize(server, str(told.messages[0]["content"]))
    runs = [struct.pack("<4i", *tokens[at : at + 4]) for at in range(0, len(tokens) - 4, 4)]
    texts = [b"My name is", b"Item 7 is", b"Nice to meet", b"Xanthippe", b'note": ', ASK_NAME.encode()]
    return [
        str(file)
        for file, content in everything(path).items()
        if any(each in content for each in [*runs, *texts])
    ]


class TestAtRest:
    def test_nothing_is_readable_and_all_is_found_again(
        self, start_server: StartServer, tmp_path: Path
    ) -> None:
        options = encrypted(tmp_path, key_file(tmp_path))
        server = start_server(options)
        told = live(server, 0)
        first = told.ask(server, ASK_CITY, **SESSION)
        flush(server)
        assert memory_status(server)["disk"]["encrypted"] is True
        assert len(block_files(memory_path(options))) >= 3
        assert shown(memory_path(options), server, told) == []
        kill_and_start(server)
        answer = told.ask(server, ASK_NAME, **SESSION)
        assert answer.recalls(first)
        assert answer.layer in (1, 2)
        loaded = server.post("/v1/atlas/memory/load", {"context_id": "note"}).json()["data"]
        assert loaded["state"] == SAVED
        session = server.post("/v1/atlas/memory/load", {"context_id": "ada"}).json()["data"]
        assert ASK_CITY in str(session["session"]["conversation_history"])
        assert memory_status(server)["damaged_files"] == 0

    def test_kill_9_at_any_moment(self, start_server: StartServer, tmp_path: Path) -> None:
        options = encrypted(tmp_path, key_file(tmp_path))
        server = start_server(options)
        told = Conversation(1, n_items=100)
        for _ in range(3):
            told.ask(server, **SESSION)  # and is killed while it writes
            kill_and_start(server)
        status = memory_status(server)
        assert status["damaged_files"] == status["foreign_files"] == 0
        last = told.ask(server, **SESSION)
        flush(server)
        kill_and_start(server)
        assert told.ask(server, **SESSION).recalls(last)

    def test_it_is_switched_on_over_what_is_there(self, start_server: StartServer, tmp_path: Path) -> None:
        plain = memory_options(tmp_path)
        server = start_server(plain)
        told = live(server, 2)
        last = told.ask(server, **SESSION)
        flush(server)
        path = memory_path(plain)
        assert shown(path, server, told), "else the next search proves nothing"
        options = encrypted(tmp_path, key_file(tmp_path))
        server.kill()
        server = start_server(options)
        wait_for_memory(server)
        deadline = time.monotonic() + 60
        while memory_status(server)["disk"]["not_encrypted"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert told.ask(server, **SESSION).recalls(last)
        assert server.post("/v1/atlas/memory/load", {"context_id": "note"}).json()["data"]["state"] == SAVED
        flush(server)
        assert shown(path, server, told) == []
        assert server.get("/v1/atlas/status").json()["problems"] == []

    def test_a_wrong_or_missing_key_changes_nothing(self, start_server: StartServer, tmp_path: Path) -> None:
        key = key_file(tmp_path)
        options = encrypted(tmp_path, key)
        server = start_server(options)
        told = live(server, 3)
        last = told.ask(server, **SESSION)
        flush(server)
        server.kill()
        path = memory_path(options)
        before = everything(path)
        log = refused(tmp_path, *encrypted(tmp_path, key_file(tmp_path, "other")))
        assert "encryption_key_file" in log
        assert f"the memory in {path} is encrypted with another key" in log
        log = refused(tmp_path, *memory_options(tmp_path))
        assert f"the memory in {path} is encrypted, and no key is given: give encryption_key_file" in log
        assert everything(path) == before
        server = start_server(options)
        wait_for_memory(server)
        assert told.ask(server, **SESSION).recalls(last)

    def test_the_key_comes_from_a_command(self, start_server: StartServer, tmp_path: Path) -> None:
        key = key_file(tmp_path)
        server = start_server(encrypted(tmp_path, key))
        told = live(server, 4)
        last = told.ask(server, **SESSION)
        flush(server)
        server.kill()
        text = base64.b64encode(key.read_bytes()).decode()
        by_command = [
            *memory_options(tmp_path),
            "--atlas-encryption-key-command",
            f"echo asked >&2; echo {text}",
        ]
        server = start_server(by_command)
        wait_for_memory(server)
        assert told.ask(server, **SESSION).recalls(last)
        assert "asked" in server.log
        assert text not in server.log
        config = server.get("/v1/atlas/config").text
        assert text not in config + server.get("/v1/atlas/status").text

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--atlas-encryption-key-command", "echo no vault >&2; exit 3"], "status 3: no vault"),
            (["--atlas-encryption-key-command", "echo topsecret"], "10 bytes that are no key"),
            (
                ["--atlas-encryption-key-file", "/no/such/key"],
                "encryption_key_file /no/such/key: cannot be opened",
            ),
            (
                ["--atlas-shared-secret-file", "/no/such/key"],
                "shared_secret_file /no/such/key: cannot be opened",
            ),
            (
                ["--atlas-encryption-key-file", "/k", "--atlas-encryption-key-command", "true"],
                "both given: give one of them",
            ),
        ],
    )
    def test_without_a_key_the_server_says_why(self, tmp_path: Path, arguments: list[str], said: str) -> None:
        options = memory_options(tmp_path)
        log = refused(tmp_path, *options, *arguments)
        assert said in log
        assert "topsecret" not in log
        assert not memory_path(options).exists()

    def test_rows_that_were_swapped_are_not_taken(self, start_server: StartServer, tmp_path: Path) -> None:
        options = encrypted(tmp_path, key_file(tmp_path))
        server = start_server(options)
        for name in ("one", "two"):
            server.post("/v1/atlas/memory/save", {"context_id": name, "state": {"of": name}})
        server.kill()
        with sqlite3.connect(memory_path(options) / "contexts.sqlite3") as rows:
            rows.execute(
                "UPDATE contexts SET state = (SELECT state FROM contexts WHERE id = 'two') WHERE id = 'one'"
            )
        server = start_server(options)
        answer = server.post("/v1/atlas/memory/load", {"context_id": "one"})
        assert answer.status_code == 500
        assert "contexts/one is damaged" in answer.json()["error"]["message"]
        listed = server.post("/v1/atlas/memory/list").json()["data"]["contexts"]
        assert {each["bytes"] for each in listed} == {len('{"of":"one"}')}
        assert server.post("/v1/atlas/memory/load", {"context_id": "two"}).json()["data"]["state"] == {
            "of": "two"
        }


def tenants_of(server: Server) -> dict[str, str]:
    """The names under which two keys' sessions are kept."""
    names = {}
    for key in (ADA, BEN):
        Conversation(5).ask(with_key(server, key), atlas={"session_id": f"of-{key}"})
        flush(with_key(server, ADMIN))
    listed = with_key(server, ADMIN).post("/v1/atlas/memory/list").json()["data"]["contexts"]
    for each in listed:
        names[each["context_id"]] = each["tenant"]
    return names


def with_keys(directory: Path, *options: str | Path) -> list[str | Path]:
    keys = ["--api-key", f"{ADA},{BEN}", "--atlas-admin-key", ADMIN]
    return [*memory_options(directory), *keys, *options]


class TestFleet:
    def test_tenants_are_the_same_where_the_secret_is(
        self, start_server: StartServer, tmp_path: Path
    ) -> None:
        names, first_keys = [], []
        secret: list[str | Path] = ["--atlas-shared-secret-file", key_file(tmp_path, "fleet")]
        nothing: list[str | Path] = []
        for name, options in (("a", secret), ("b", secret), ("c", nothing)):
            directory = tmp_path / name
            directory.mkdir()
            server = start_server(with_keys(directory, *options))
            names.append(tenants_of(server))
            server.kill()
            with sqlite3.connect(directory / "memory/contexts.sqlite3") as rows:
                first_keys.append({chain[:32] for (chain,) in rows.execute("SELECT chain FROM chains")})
        assert names[0] == names[1]
        assert len(set(names[0].values())) == 2
        assert not set(names[0].values()) & set(names[2].values())
        assert first_keys[0] == first_keys[1], "else what one computed serves no other"
        assert len(first_keys[0]) == 2
        assert not first_keys[0] & first_keys[2]

    def test_what_was_kept_before_is_spoken_of_and_not_lost(
        self, start_server: StartServer, tmp_path: Path
    ) -> None:
        server = start_server(with_keys(tmp_path))
        told = Conversation(6, n_items=60)
        first = told.ask(with_key(server, ADA), atlas={"session_id": "ada"})
        flush(with_key(server, ADMIN))
        server.kill()
        secret = key_file(tmp_path, "fleet")
        server = start_server(with_keys(tmp_path, "--atlas-shared-secret-file", secret))
        admin = with_key(server, ADMIN)
        wait_for_memory(admin)
        assert "Clients' names come from shared_secret_file now" in str(
            admin.get("/v1/atlas/status").json()["notices"]
        )
        assert with_key(server, ADA).post("/v1/atlas/memory/list").json()["data"]["contexts"] == []
        server.kill()
        server = start_server(with_keys(tmp_path))
        wait_for_memory(with_key(server, ADMIN))
        assert told.ask(with_key(server, ADA), atlas={"session_id": "ada"}).recalls(first)
