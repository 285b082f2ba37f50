"""README's first minute, word for word, and what a missing or damaged model gets."""

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.harness import MODEL, REPOSITORY, Server

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
FIRST_MINUTE = README.partition("## Sixty seconds")[2].partition("Keep a document of your own")[0]


def blocks(language: str) -> list[str]:
    """The code blocks of README's first minute."""
    found: list[str] = re.findall(rf"```{language}\n(.*?)```", FIRST_MINUTE, re.DOTALL)
    return found


def commands() -> Iterator[str]:
    """The commands that follow `make serve`, each in one piece."""
    for block in blocks("console"):
        yield from (command.strip() for command in re.split(r"^\$ ", block, flags=re.MULTILINE) if command)


def run(command: str, server: Server) -> dict[str, object]:
    """What curl prints, from this server."""
    local = command.replace("localhost:8080", f"127.0.0.1:{server.port}")
    output = subprocess.run(["bash", "-c", local], check=True, stdout=subprocess.PIPE, timeout=60).stdout
    answer: dict[str, object] = json.loads(output)
    return answer


def test_the_first_minute_as_it_is_written(tmp_path: Path) -> None:
    environment = {"ATLAS_MEMORY_PATH": str(tmp_path / "atlas_memory")}
    serve, tell, kill, ask = commands()
    said, remembered, *_ = (json.loads("{" + block + "}") for block in blocks("json"))
    assert serve == "make serve"
    assert kill == "pkill -9 llama-server; make serve &"
    server = Server(environment=environment, directory=tmp_path)
    with server:
        told = run(tell, server)
        # who types the next command leaves the writer that much time
        server.post("/v1/atlas/memory/flush").raise_for_status()
        server.kill()
        server.start()
        asked = run(ask, server)
    contents = [answer["choices"][0]["message"]["content"] for answer in (told, asked)]  # type: ignore[index]
    assert contents == [said["content"], remembered["content"]]
    assert asked["timings"]["cache_n"] == asked["atlas"]["reused_tokens"] > 0  # type: ignore[index]
    assert asked["atlas"]["layer"] in (1, 2)  # type: ignore[index]


def make_serve(model: Path) -> subprocess.CompletedProcess[str]:
    """`make serve` with that model, which has to fail."""
    command = ["make", "--no-print-directory", "serve", f"MODEL={model}", "PORT=1"]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False)


def test_a_missing_model_is_named_with_what_brings_it_back(tmp_path: Path) -> None:
    result = make_serve(tmp_path / "none.gguf")
    assert result.returncode != 0
    assert f"no model file '{tmp_path}/none.gguf'" in result.stderr
    assert "git checkout models/" in result.stderr
    assert "make train-demo-model" in result.stderr


@pytest.mark.parametrize("damage", ["cut short", "a bit flipped"])
def test_a_damaged_model_gets_the_servers_error_and_what_brings_it_back(tmp_path: Path, damage: str) -> None:
    model = tmp_path / MODEL.name
    content = bytearray(MODEL.read_bytes())
    if damage == "cut short":
        del content[len(content) // 2 :]
    else:
        content[1] ^= 1
    model.write_bytes(content)
    shutil.copy(f"{MODEL}.sha256", f"{model}.sha256")
    result = make_serve(model)
    assert result.returncode != 0
    assert f"'{model}' is damaged" in result.stderr
    assert "make train-demo-model" in result.stderr
    assert "failed to load model" in result.stdout + result.stderr


def test_the_demo_model_is_the_one_that_was_published() -> None:
    published = Path(f"{MODEL}.sha256").read_text(encoding="ascii").strip()
    assert hashlib.sha256(MODEL.read_bytes()).hexdigest() == published
    assert MODEL.stat().st_size <= 6 << 20
