"""A build with -DGGML_RPC=ON: `make test-rpc` makes it, and runs this.

All layers are on a device of another process, ggml-rpc-server, so that no tensor of the state is in the
server's own memory. The name is not that of a test, so that `make test` leaves it out.
"""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.archs.test_archs import (
    PROMPT_TOKENS,
    REUSED,
    SERVER,
    TOLERANCE_OF_BATCHES,
    Answers,
    Conversation,
    ask,
    assert_restored,
    distances,
)
from tests.server.conversations import NO_PRELOADING, flush, memory_status
from tests.server.harness import BINARY, MODEL, STOCK_BINARY, Server, free_port
from tests.server.preloading import HeldReads, SlowBatches
from tests.server.root_records import leave_wrong_state
from tests.server.test_fingerprint import MIB, padded_model

RPC_SERVER = BINARY.with_name("ggml-rpc-server")
DEMO = "demo"
MODELS = ["llama-dense", "gemma3-dense", "qwen35-dense", "mamba-dense", DEMO]

# Of a batch: so long that a trial takes longer than a start waits for others.
SLOW_MS = 300


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "name" in metafunc.fixturenames:
        metafunc.parametrize("name", MODELS)


def listens(port: int) -> bool:
    """Whether somebody does at that port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def rpc_device() -> Iterator[list[str]]:
    """Options by which all layers and their state are on a device of another process."""
    port = free_port()
    command = [str(RPC_SERVER), "--host", "127.0.0.1", "--port", str(port), "--threads", "1"]
    # A client that is killed while it is sent something must not end it: SIGPIPE stays ignored, as in Python.
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, restore_signals=False) as process:
        while not listens(port):
            assert process.poll() is None
        yield ["-ngl", "99", "--rpc", f"127.0.0.1:{port}"]
        process.kill()


@pytest.fixture(scope="module")
def device() -> Iterator[list[str]]:
    if not RPC_SERVER.exists():
        pytest.fail(f"there is no {RPC_SERVER}: `make test-rpc` builds it, and runs these tests")
    with rpc_device() as options:
        yield options


@pytest.fixture
def model(name: str, models: Path) -> Path:
    return MODEL if name == DEMO else models / f"{name}.gguf"


class Kept:
    """A conversation with a memory in a directory, on one device or another."""

    def __init__(self, directory: Path, model: Path = MODEL, **environment: str) -> None:
        self.directory, self.model, self.environment = directory, model, environment
        self.conversation = Conversation()
        self.memory = ["--atlas-memory-path", str(directory / "memory"), *NO_PRELOADING]
        self.memory += ["--atlas-block-tokens", "64"]

    def server(self, device: list[str], model: Path | None = None) -> Server:
        options = [*SERVER, *self.memory, *device]
        return Server(options, self.environment, directory=self.directory, model=model or self.model)

    def begin(self, device: list[str], model: Path | None = None) -> str:
        """Say what is to be kept. Returns the root, and what comes next is in `appended` and `edited`."""
        with self.server(device, model) as server:
            answer = ask(server, self.conversation.prompt)
            flush(server)
            root: str = memory_status(server)["root"]
        self.appended, self.edited = self.conversation.appended(answer), self.conversation.edited
        return root

    def go_on(self, server: Server) -> Answers:
        return ask(server, self.appended, id_slot=0), ask(server, self.edited, id_slot=1)

    def assert_like_stock(self, answers: Answers) -> None:
        with Server(SERVER, directory=self.directory, model=self.model, binary=STOCK_BINARY) as stock:
            assert distances(answers, self.go_on(stock)) <= TOLERANCE_OF_BATCHES


def proof(server: Server) -> str:
    return str(memory_status(server)["state_of_others"]["proof"])


def test_goes_on_after_kill_9(model: Path, device: list[str], tmp_path: Path) -> None:
    assert_restored(model, tmp_path, device=device)


@pytest.mark.parametrize("leaves", [False, True], ids=["to the device", "from the device"])
def test_state_of_another_device_is_adopted(
    model: Path, device: list[str], tmp_path: Path, leaves: bool
) -> None:
    before, after = ("RPC", "CPU") if leaves else ("CPU", "RPC")
    devices: dict[str, list[str]] = {"RPC": device, "CPU": []}
    kept = Kept(tmp_path, model)
    root = kept.begin(devices[before])
    with kept.server(devices[after]) as server:
        server.wait_until(lambda: memory_status(server)["root"])
        assert memory_status(server)["root"] == root
        assert f"devices={before}*" in proof(server)
        assert "is used" in proof(server)
        answers = kept.go_on(server)
    assert all(each["timings"]["cache_n"] >= REUSED * (PROMPT_TOKENS - 20) for each in answers)
    kept.assert_like_stock(answers)


def test_wrong_state_is_left_alone(device: list[str], tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    wrong = leave_wrong_state(tmp_path, lambda model: kept.begin([], model))
    with kept.server(device) as server:
        answers = kept.go_on(server)
        assert "is left alone: log-probabilities of likely tokens differ by" in proof(server)
        assert memory_status(server)["root"] != wrong
    assert answers[0]["timings"]["cache_n"] == 0
    kept.assert_like_stock(answers)


def test_nothing_is_computed_while_state_is_tried(device: list[str], tmp_path: Path) -> None:
    """Two threads that compute with one device of RPC at once get each other's results, or abort."""
    kept = Kept(tmp_path)
    root = kept.begin([])
    kept.environment = SlowBatches(tmp_path, SLOW_MS).environment
    with kept.server(device) as server:  # serves when it was tried
        assert "is used" in proof(server)
        assert memory_status(server)["root"] == root
        answers = kept.go_on(server)
    assert answers[0]["timings"]["cache_n"] >= REUSED * PROMPT_TOKENS
    kept.assert_like_stock(answers)


def test_what_cannot_be_tried_before_it_serves_is_tried_by_the_next_start(
    device: list[str], tmp_path: Path
) -> None:
    held = HeldReads(tmp_path)
    kept = Kept(tmp_path, padded_model(held.directory / "model.gguf", 80 * MIB))
    root = kept.begin([])
    padded_model(kept.model, 80 * MIB)  # written anew, so that it is hashed anew
    kept.environment = held.environment
    with kept.server(device) as server:
        assert ask(server, kept.appended)["timings"]["cache_n"] == 0
        held.release()
        flush(server)
        assert "is left alone until the next start" in proof(server)
        assert memory_status(server)["root"] != root
    with kept.server(device) as server:
        assert "is used" in proof(server)
        assert memory_status(server)["root"] == root
        answers = kept.go_on(server)
    assert answers[0]["timings"]["cache_n"] >= REUSED * PROMPT_TOKENS
    kept.assert_like_stock(answers)
