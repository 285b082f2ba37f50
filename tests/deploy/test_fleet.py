"""The compose files, the files of `deploy/fleet/`, and a fleet that runs with them."""

import re
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import valkey

from atlas_plugin import facts
from tests.deploy.fleet import (
    FLEET,
    SECRETS,
    Fleet,
    SharedStore,
    compose,
    haproxy,
    image_environment,
    replaced,
)
from tests.deploy.prometheus import promtool
from tests.deploy.queries import RULES
from tests.server.conversations import ASK_CITY, ASK_NAME, GREEDY, Conversation
from tests.server.harness import BINARY, REPOSITORY
from tests.stores import redis_server, valkey_server

COMPOSE_FILES = [REPOSITORY / "deploy/compose.yml", FLEET / "compose.yml"]
N_ITEMS = 60  # so that most of a conversation is what its turns have in common
REUSED = 0.95


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("made") / "secrets"
    subprocess.run([FLEET / "make-secrets", directory], check=True, timeout=60)
    return directory


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("fleet")) as running:
        yield running


@pytest.mark.parametrize("path", COMPOSE_FILES, ids=lambda path: path.parent.name)
def test_what_a_compose_file_names_is_there(path: Path, secrets: Path) -> None:
    document = compose(path)
    for name, service in document["services"].items():
        for mount in service.get("volumes", ()):
            source = mount.split(":")[0]
            if source.startswith("."):
                assert (path.parent / source).exists(), (name, source)
            else:
                assert source in document["volumes"], (name, source)
        assert set(service.get("secrets", ())) <= document.get("secrets", {}).keys(), name
        assert set(service.get("depends_on", ())) <= document["services"].keys(), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
    for secret, source in document.get("secrets", {}).items():
        assert source["file"] == f"./secrets/{secret}"
        assert (secrets / secret).stat().st_size > 0


def test_the_environment_is_what_the_server_knows() -> None:
    known = {row["env"] for row in facts.SETTINGS} | {"ATLAS_CONFIG"}
    shown = subprocess.run([BINARY, "--help"], capture_output=True, text=True, timeout=60, check=True).stdout
    environments = [image_environment()]
    for path in COMPOSE_FILES:
        environments += [
            one["environment"] for one in compose(path)["services"].values() if "environment" in one
        ]
    assert len(environments) == 4
    for variable in {variable for environment in environments for variable in environment}:
        assert variable in known or f"env: {variable})" in shown, variable


def test_secrets_are_private_and_differ(secrets: Path) -> None:
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    texts = [path.read_text(encoding="ascii").strip() for path in secrets.iterdir()]
    assert len(set(texts)) == len(texts)
    password = (secrets / "atlas.toml").read_text(encoding="ascii").split(":")[2].partition("@")[0]
    assert len(password) == 64
    assert password not in (secrets / "store-users.acl").read_text(encoding="ascii")
    again = subprocess.run(
        [FLEET / "make-secrets", secrets], capture_output=True, text=True, timeout=60, check=False
    )
    assert again.returncode == 1
    assert "is there already" in again.stderr


@pytest.mark.parametrize("program", [redis_server, valkey_server])
def test_the_store_takes_its_settings_and_lets_servers_in_only(
    secrets: Path, tmp_path: Path, program: Any
) -> None:
    password = (secrets / "atlas.toml").read_text(encoding="ascii").split(":")[2].partition("@")[0]
    with SharedStore(tmp_path, secrets, program()) as store:
        stranger = valkey.Valkey("127.0.0.1", store.port)
        with pytest.raises(valkey.ValkeyError, match="Authentication required"):
            stranger.ping()
        ours: Any = valkey.Valkey("127.0.0.1", store.port, username="atlas", password=password)
        assert ours.set("atlas:1:test", b"state", ex=60)
        assert ours.get("atlas:1:test") == b"state"
        for refused in (["GET", "other"], ["KEYS", "*"], ["FLUSHALL"], ["CONFIG", "GET", "*"]):
            with pytest.raises(valkey.exceptions.NoPermissionError):
                ours.execute_command(*refused)
        assert not list(tmp_path.glob("*.rdb"))


def test_the_router_takes_its_configuration() -> None:
    done = subprocess.run(
        haproxy("-c", "-f", FLEET / "haproxy.cfg"), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    # compose's names are known in its network only
    warnings = [line for line in done.stderr.splitlines() if "[WARNING]" in line]
    assert all("could not resolve address 'server-" in line for line in warnings), warnings


def test_prometheus_takes_its_configuration(secrets: Path, tmp_path: Path) -> None:
    text = (FLEET / "prometheus.yml").read_text(encoding="utf-8")
    config = tmp_path / "prometheus.yml"
    config.write_text(replaced(text, {SECRETS: str(secrets), "- alerts.yml": f"- {RULES}"}), encoding="utf-8")
    promtool("check", "config", config)
    services = compose(FLEET / "compose.yml")["services"]
    targets = re.findall(r"([\w-]+):8080", text)
    assert targets == [name for name in services if name.startswith("server-")]


def ask(fleet: Fleet, told: Conversation, question: str, name: str) -> Any:
    messages = told.asking(question)
    body = {"messages": messages, **GREEDY, "atlas": {}}
    response = fleet.client.post("/v1/chat/completions", json=body, headers={"X-Conversation-Id": name})
    assert response.status_code == 200, response.text
    told.messages = [*messages, response.json()["choices"][0]["message"]]
    return response.json()


def test_turns_stay_with_a_server_and_survive_it(fleet: Fleet) -> None:
    told = {f"conversation-{number}": Conversation(number, N_ITEMS) for number in range(6)}
    for name, conversation in told.items():
        first = ask(fleet, conversation, ASK_NAME, name)
        assert first["atlas"]["session_id"] == name
    # most of the next turn was in the server's own slots or RAM: it came back to where the first one was
    for name, conversation in told.items():
        atlas = ask(fleet, conversation, ASK_CITY, name)["atlas"]
        assert atlas["layer"] < 3
        assert atlas["reused_tokens"] >= REUSED * atlas["prompt_tokens"]
    for server in fleet.servers:
        shared = server.post("/v1/atlas/memory/flush", {"timeout_s": 60, "layer": 3})
        assert shared.status_code == 200, shared.text
    gone, left = fleet.servers
    gone.kill()
    layers = set()
    for name, conversation in told.items():
        atlas = ask(fleet, conversation, ASK_NAME, name)["atlas"]
        assert atlas["reused_tokens"] >= REUSED * atlas["prompt_tokens"]
        layers.add(atlas["layer"])
    assert 3 in layers  # some were the other's
    assert fleet.started() == [left]
    key = (fleet.secrets / "prometheus-key").read_text(encoding="ascii").strip()
    scraped = left.get("/v1/atlas/metrics/prometheus", headers={"Authorization": f"Bearer {key}"})
    assert "\natlas_shared_up 1" in scraped.text
    assert "\natlas_shared_damaged_total 0" in scraped.text


def test_what_the_fleet_stores_is_sealed(fleet: Fleet) -> None:
    """The fleet's secret reaches the servers: else values would be plain, and the log would say so."""
    keys = [key for key in fleet.store_keys() if key.startswith(b"atlas:1:")]  # not records of sessions
    assert keys
    assert {fleet.store_value(key)[:8] for key in keys} == {b"ATLASEAL"}
    assert all("--atlas-shared-secret-file" not in server.log for server in fleet.servers)
