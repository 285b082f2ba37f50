"""Images are a part of what the memory knows a prompt by, and are not encoded again after kill -9."""

import base64
import io
import math
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.server.conftest import StartServer
from tests.server.conversations import COLD, flush, kill_and_start, memory_options, memory_status
from tests.server.gguf_files import write_audio_projector, write_lora, write_projector
from tests.server.harness import STOCK_BINARY, Server

Message = dict[str, Any]
# Tokens: what follows the last image of a chat.
AFTER_THE_IMAGE = 10
FILLER = "I went for a walk along the river and saw a heron. " * 6


def image(shade: int, size: int = 32) -> dict[str, Any]:
    """A picture of one colour."""
    pixels = b"P6 %d %d 255\n" % (size, size) + bytes([shade]) * (size * size * 3)
    url = "data:image/x-portable-pixmap;base64," + base64.b64encode(pixels).decode()
    return {"type": "image_url", "image_url": {"url": url}}


def sound(pitch: int, seconds: float = 1) -> dict[str, Any]:
    """A tone of so many Hz."""
    file, rate = io.BytesIO(), 16_000
    with wave.open(file, "wb") as samples:
        samples.setparams((1, 2, rate, 0, "NONE", ""))
        angles = (2 * math.pi * pitch * number / rate for number in range(int(seconds * rate)))
        samples.writeframes(
            b"".join(int(8000 * math.sin(angle)).to_bytes(2, "little", signed=True) for angle in angles)
        )
    data = base64.b64encode(file.getvalue()).decode()
    return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}


def turns(*numbers: int, media: Callable[[int], dict[str, Any]] = image) -> list[Message]:
    """A chat with a picture, or what else, in each message of the user's."""
    messages: list[Message] = [{"role": "system", "content": f"Be kind. {FILLER}"}]
    for number in numbers:
        parts = [
            {"type": "text", "text": f"Look at this. {FILLER}"},
            media(number),
            {"type": "text", "text": "So?"},
        ]
        messages += [{"role": "user", "content": parts}, {"role": "assistant", "content": "How nice."}]
    return messages


def ask(
    server: Server, messages: list[Message], question: Any = "And now?", **fields: Any
) -> tuple[str, int, int]:
    """Text of the answer, tokens of the prompt, and how many of these were reused."""
    asked = [*messages, {"role": "user", "content": question}]
    body = {"messages": asked, "temperature": 0, "max_tokens": 8, **fields}
    response = server.post("/v1/chat/completions", body)
    assert response.status_code == 200, response.text
    answer = response.json()
    text = answer["choices"][0]["message"]["content"]
    return text, answer["usage"]["prompt_tokens"], answer["timings"]["cache_n"]


@pytest.fixture
def projector(tmp_path: Path) -> Path:
    return write_projector(tmp_path / "mmproj.gguf")


def start(start_server: StartServer, tmp_path: Path, projector: Path, *more: str | Path) -> Server:
    options = [*memory_options(tmp_path), "--atlas-block-tokens", "64"]
    return start_server([*options, "--mmproj", projector, *more])


def restart(server: Server) -> None:
    flush(server)
    kill_and_start(server)


def test_a_chat_of_texts(start_server: StartServer, tmp_path: Path, projector: Path) -> None:
    server = start(start_server, tmp_path, projector)
    assert "problem" not in memory_status(server)
    text, n_tokens, _ = ask(server, turns())
    restart(server)
    assert ask(server, turns()) == (text, n_tokens, n_tokens - 1)


def test_a_chat_with_three_images(start_server: StartServer, tmp_path: Path, projector: Path) -> None:
    server = start(start_server, tmp_path, projector)
    chat = turns(10, 100, 200)
    text, n_tokens, _ = ask(server, chat)
    restart(server)
    assert ask(server, chat) == (text, n_tokens, n_tokens - 1)  # so that no image was encoded
    stock = start_server(["--mmproj", projector], binary=STOCK_BINARY)
    assert ask(stock, chat, **COLD)[:2] == (text, n_tokens)


def test_another_image(start_server: StartServer, tmp_path: Path, projector: Path) -> None:
    """As large, at the same place: what is before it is all that they share."""
    server = start(start_server, tmp_path, projector)
    first, _, _ = ask(server, turns(10, 100))
    restart(server)
    second, n_tokens, reused = ask(server, turns(10, 101))
    assert 0.8 * n_tokens < reused < n_tokens - AFTER_THE_IMAGE
    stock = start_server(["--mmproj", projector], binary=STOCK_BINARY)
    assert second == ask(stock, turns(10, 101), **COLD)[0]
    assert first == ask(stock, turns(10, 100), **COLD)[0]


def test_what_has_no_images_is_shared(start_server: StartServer, tmp_path: Path, projector: Path) -> None:
    """Between servers with and without the projector, and with another."""
    server = start_server([*memory_options(tmp_path), "--atlas-block-tokens", "64"])
    _, n_tokens, _ = ask(server, turns())
    server.stop()
    server = start(start_server, tmp_path, projector)
    assert ask(server, turns())[2] == n_tokens - 1
    ask(server, turns(10, 100))
    server.stop()
    other = tmp_path / "other.gguf"
    other.write_bytes(projector.read_bytes()[:-4] + b"\0\0\0\1")
    server = start(start_server, tmp_path, other)
    _, n_tokens, reused = ask(server, turns(10, 100))
    assert 0.4 * n_tokens < reused < 0.6 * n_tokens


def test_under_an_adapter(start_server: StartServer, tmp_path: Path, projector: Path) -> None:
    server = start(start_server, tmp_path, projector, "--lora", write_lora(tmp_path / "lora.gguf"))
    text, n_tokens, _ = ask(server, turns(10))
    restart(server)
    assert ask(server, turns(10)) == (text, n_tokens, n_tokens - 1)
    assert ask(server, turns(10), lora=[{"id": 0, "scale": 0.0}])[2] == 0


def test_a_chat_with_three_sounds(start_server: StartServer, tmp_path: Path) -> None:
    projector = write_audio_projector(tmp_path / "ears.gguf")
    server = start(start_server, tmp_path, projector)
    assert "problem" not in memory_status(server)
    chat, other = (turns(200, 300, pitch, media=sound) for pitch in (400, 401))
    text, n_tokens, _ = ask(server, chat)
    restart(server)
    assert ask(server, chat) == (text, n_tokens, n_tokens - 1)  # so that no sound was encoded
    changed, _, reused = ask(server, other)
    assert 0.6 * n_tokens < reused < n_tokens - AFTER_THE_IMAGE
    stock = start_server(["--mmproj", projector], binary=STOCK_BINARY)
    assert ask(stock, chat, **COLD)[:2] == (text, n_tokens)
    assert ask(stock, other, **COLD)[0] == changed
