"""Slot files are checked before they are believed, go between ours and stock, and are replaced as a whole."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.conftest import StartServer
from tests.server.harness import MODEL, STOCK_BINARY, Server

LAYOUTS = {"unified": ["-kvu"], "streams": ["-no-kvu"]}
PROMPT = "garden river stone yellow green " * 40
TRAILER_BYTES = 64 + 32  # with what the memory calls the state by


def completion(server: Server, prompt: str = PROMPT) -> dict[str, Any]:
    body = {"prompt": prompt, "n_predict": 8, "temperature": 0, "id_slot": 0}
    answer: dict[str, Any] = server.post("/completion", body).json()
    return answer


def save(server: Server, name: str) -> dict[str, Any]:
    answer: dict[str, Any] = server.post("/slots/0?action=save", {"filename": name}).json()
    return answer


def refusal(server: Server, name: str) -> str:
    """Why a file is not restored; the slot is empty then, and works."""
    answer = server.post("/slots/0?action=restore", {"filename": name})
    assert answer.status_code == 400, answer.text
    assert server.post("/slots/0?action=erase").json()["n_erased"] == 0
    assert completion(server, "Other words.")["tokens_predicted"] > 0
    message: str = answer.json()["error"]["message"]
    return message


@pytest.fixture(scope="module", params=LAYOUTS)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server, the directory of its slot files, and the file `whole` of a slot."""
    directory = tmp_path_factory.mktemp("slots")
    slots = directory / "files"
    slots.mkdir()
    options = [*LAYOUTS[request.param], "--slot-save-path", str(slots)]
    with Server([*options, "--atlas-memory-path", directory / "memory"], directory=directory) as server:
        completion(server)
        assert save(server, "whole")["n_saved"] > 200
        yield server, slots


def test_comes_back(saved: tuple[Server, Path]) -> None:
    server, slots = saved
    server.post("/slots/0?action=erase")
    first = completion(server)["content"]
    answer = server.post("/slots/0?action=restore", {"filename": "whole"}).json()
    assert answer["n_read"] == (slots / "whole").stat().st_size - TRAILER_BYTES
    again = completion(server)
    assert again["content"] == first
    assert again["timings"]["cache_n"] >= answer["n_restored"] - 16


@pytest.mark.parametrize("part", [0.0, 0.0001, 0.02, 0.3, 0.6, 0.9, 0.9999])
def test_truncated(saved: tuple[Server, Path], part: float) -> None:
    server, slots = saved
    whole = (slots / "whole").read_bytes()
    (slots / "cut").write_bytes(whole[: int(len(whole) * part)])
    refusal(server, "cut")
    # as stock would have left it
    (slots / "cut").write_bytes(whole[: int((len(whole) - TRAILER_BYTES) * part)])
    refusal(server, "cut")


@pytest.mark.parametrize("at", [0, 9, 40, 0.1, 0.5, 0.9, -33, -25, -17, -9, -1])
def test_flipped(saved: tuple[Server, Path], at: float) -> None:
    server, slots = saved
    content = bytearray((slots / "whole").read_bytes())
    content[int(len(content) * at) if isinstance(at, float) else at] ^= 0x40
    (slots / "flipped").write_bytes(content)
    assert "damaged" in refusal(server, "flipped") or at == 0


def test_other_tokens_than_the_state_has(saved: tuple[Server, Path]) -> None:
    """A file without a checksum, whose two parts are each right."""
    server, slots = saved
    content = (slots / "whole").read_bytes()[:-TRAILER_BYTES]
    n_tokens = int.from_bytes(content[8:12], "little")
    plain = (5).to_bytes(4, "little") * 3
    state = content[12 + 4 * n_tokens :]
    (slots / "other").write_bytes(content[:8] + (3).to_bytes(4, "little") + plain + state)
    assert "not those of its state" in refusal(server, "other")


@pytest.mark.parametrize("name", ["none", "directory"])
def test_no_file(saved: tuple[Server, Path], name: str) -> None:
    server, slots = saved
    (slots / "directory").mkdir(exist_ok=True)
    assert "no such file" in refusal(server, name)


@pytest.mark.parametrize("name", ["../a", "/tmp/a", "..", "a/b", "", "a\0b"])
def test_names_stay_in_the_directory(saved: tuple[Server, Path], name: str) -> None:
    server, slots = saved
    before = sorted(slots.parent.iterdir())
    for action in ("save", "restore"):
        assert server.post(f"/slots/0?action={action}", {"filename": name}).status_code == 400
    assert sorted(slots.parent.iterdir()) == before


def test_a_file_is_replaced_as_a_whole(saved: tuple[Server, Path]) -> None:
    server, slots = saved
    completion(server)
    save(server, "twice")
    before = (slots / "twice").stat().st_ino
    save(server, "twice")
    assert (slots / "twice").stat().st_ino != before
    # what cannot be saved leaves nothing behind
    (slots / "taken").mkdir()
    assert server.post("/slots/0?action=save", {"filename": "taken"}).status_code == 500
    assert not list(slots.glob(".slot-*"))


def test_of_stock_and_for_stock(start_server: StartServer, tmp_path: Path) -> None:
    options = ["--slot-save-path", tmp_path]
    stock, ours = start_server(options, binary=STOCK_BINARY), start_server(options)
    for writer, reader in ((stock, ours), (ours, stock)):
        first = completion(writer)["content"]
        n_saved = save(writer, "a")["n_saved"]
        answer = reader.post("/slots/0?action=restore", {"filename": "a"}).json()
        assert answer["n_restored"] == n_saved
        again = completion(reader)
        assert again["content"] == first
        assert again["timings"]["cache_n"] >= n_saved - 16
        reader.post("/slots/0?action=erase")


def test_of_another_model(start_server: StartServer, tmp_path: Path) -> None:
    model = tmp_path / "other.gguf"
    script = [sys.executable, "-m", "gguf.scripts.gguf_new_metadata", "--general-name", "Another"]
    subprocess.run([*script, MODEL, model], check=True, capture_output=True)
    options = ["--slot-save-path", tmp_path]
    writer = start_server(options)
    completion(writer)
    save(writer, "a")
    assert "saved from another model" in refusal(start_server(options, model=model), "a")


def test_does_not_fit(start_server: StartServer, tmp_path: Path) -> None:
    options = ["--slot-save-path", tmp_path]
    writer = start_server(options)
    completion(writer)
    save(writer, "a")
    assert "does not fit" in refusal(start_server([*options, "-ctk", "q8_0"]), "a")
