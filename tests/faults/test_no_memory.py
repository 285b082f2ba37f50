"""No memory for copies of what was computed: the server goes on and answers, and keeps less."""

import re
import resource
from pathlib import Path

from tests.server.conftest import StartServer
from tests.server.conversations import memory_options, wait_for_memory
from tests.server.gguf_files import WIDE_KV_BYTES, write_wide_model
from tests.server.harness import Server
from tests.server.test_sessions import complete, tokens

CONTEXT = 1024
BLOCK = 256
# Enough for what requests need, and less than a block takes.
ROOM = BLOCK * WIDE_KV_BYTES // 2
# More than a prompt is published by, so that nothing that was freed is left for them.
REFUSED = 12


def limit_memory(server: Server, room: int | None) -> None:
    """Let the process have so many bytes of address space more than it has now; None: as many as it likes."""
    assert server.process is not None
    pid = server.process.pid
    used = re.search(r"VmSize:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(encoding="ascii"))
    assert used
    limit = resource.RLIM_INFINITY if room is None else int(used[1]) * 1024 + room
    resource.prlimit(pid, resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def test_no_memory_for_copies(start_server: StartServer, tmp_path: Path) -> None:
    model = write_wide_model(tmp_path / "wide.gguf", CONTEXT)
    server = start_server([*memory_options(tmp_path), "-c", f"{2 * CONTEXT}"], model=model)
    prompts = [tokens(seed, 3 * BLOCK) for seed in range(REFUSED + 2)]
    complete(server, prompts[0], "first")
    assert server.post("/v1/atlas/memory/flush").status_code == 200

    limit_memory(server, ROOM)
    for number, prompt in enumerate(prompts[1:-1]):
        assert complete(server, prompt, f"{number}") == 0
    assert server.logged("is not kept: no memory for a copy")
    assert len(prompts[0]) - complete(server, prompts[0], "first") <= BLOCK, "what is in RAM is found"

    limit_memory(server, None)
    complete(server, prompts[-1], "last")
    server.kill()
    server.start()
    wait_for_memory(server)
    assert len(prompts[0]) - complete(server, prompts[0], "first") <= BLOCK
