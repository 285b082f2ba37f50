"""What comes back into RAM after a start, before anybody asks for it."""

from pathlib import Path

from tests.server.conftest import StartServer
from tests.server.conversations import (
    ASK_CITY,
    NO_PRELOADING,
    Conversation,
    cold_chat,
    flush,
    kill_and_start,
    memory_options,
    memory_status,
)
from tests.server.gguf_files import WIDE_KV_BYTES, WIDE_VOCABULARY, write_wide_model

BLOCK = 16
BLOCK_BYTES = BLOCK * (WIDE_KV_BYTES + 4)  # with its tokens
N_BLOCKS = 4
CONVERSATIONS = 3


def test_a_conversation_is_in_ram_before_its_next_message(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(memory_options(tmp_path))
    told = Conversation(1)
    first = told.ask(server)
    flush(server)
    kill_and_start(server)
    found = memory_status(server)
    assert found["preloaded"]["bytes"] == found["ram"]["bytes"] > 0
    assert found["preloaded"]["entries"] == found["read"]["entries"] == found["disk"]["entries"] > 0
    second = told.ask(server, ASK_CITY, atlas={})
    assert second.recalls(first)
    assert second.layer == 1
    assert memory_status(server)["read"] == found["read"], "nothing more was read"
    assert second.text == cold_chat(server, told.messages[:-1]).text
    assert "of what was used last from disk into RAM in" in server.log_path.read_text()


def test_nothing_where_that_is_wished(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server([*memory_options(tmp_path), *NO_PRELOADING])
    told = Conversation(2)
    first = told.ask(server)
    flush(server)
    kill_and_start(server)
    found = memory_status(server)
    assert (found["preloaded"]["entries"], found["read"]["entries"], found["ram"]["bytes"]) == (0, 0, 0)
    second = told.ask(server, ASK_CITY, atlas={})
    assert second.recalls(first)
    assert second.layer == 2


def test_nothing_of_another_model(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(memory_options(tmp_path))
    Conversation(3).ask(server)
    flush(server)
    server.stop()
    model = write_wide_model(tmp_path / "wide.gguf", 1024)
    other = start_server(memory_options(tmp_path), model=model)
    other.wait_until(lambda: memory_status(other)["preloaded"]["complete"])
    found = memory_status(other)
    assert found["disk"]["entries"] > 0
    assert (found["preloaded"]["entries"], found["read"]["entries"]) == (0, 0)


def test_what_was_used_last_as_far_as_there_is_room(start_server: StartServer, tmp_path: Path) -> None:
    model = write_wide_model(tmp_path / "wide.gguf", 1024)
    room = (CONVERSATIONS - 1) * N_BLOCKS * BLOCK_BYTES + BLOCK_BYTES // 2
    options = [
        "-np",
        "1",
        "-c",
        "1024",
        "--atlas-block-tokens",
        str(BLOCK),
        "--atlas-preload-size",
        str(room),
    ]
    server = start_server([*memory_options(tmp_path), *options], model=model)

    def layer(number: int) -> int:
        prompt = [(number * 97 + place * 31) % WIDE_VOCABULARY for place in range(N_BLOCKS * BLOCK)]
        answer = server.post("/completion", {"prompt": prompt, "n_predict": 0, "atlas": {}})
        found: int = answer.json()["atlas"]["layer"]
        return found

    for number in range(CONVERSATIONS):
        assert layer(number) == 0
        flush(server)
    kill_and_start(server)
    assert memory_status(server)["ram"]["bytes"] <= room
    assert [layer(number) for number in (2, 1, 0)] == [1, 1, 2]
    # from disk, so that it is now what was used last
    kill_and_start(server)
    assert layer(0) == 1
