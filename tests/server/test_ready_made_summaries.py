"""The ready-made plugin `summaries`: a chat that would not fit the context goes on, in a real server."""

from pathlib import Path
from typing import Any

from tests.server.conftest import StartServer
from tests.server.conversations import memory_options
from tests.server.harness import Server

# A context of 2,048 tokens for each of two slots.
TURN = "I went for a walk along the river and saw a heron. " * 12


def chat(server: Server, n_turns: int) -> Any:
    messages = [{"role": "system", "content": "Be kind."}]
    for i in range(n_turns):
        messages += [
            {"role": "user", "content": f"{i}. {TURN}"},
            {"role": "assistant", "content": "How nice."},
        ]
    messages.append({"role": "user", "content": "What is my name?"})
    return server.post("/v1/chat/completions", {"messages": messages, "max_tokens": 4}, timeout=120)


def made(server: Server) -> float:
    metrics = server.get("/v1/atlas/metrics/prometheus").text
    [line] = [
        line for line in metrics.splitlines() if line.startswith('atlas_plugin_summaries_total{what="made"')
    ]
    return float(line.split()[-1])


def test_a_chat_that_would_not_fit(start_server: StartServer, tmp_path: Path) -> None:
    assert chat(start_server(), 20).status_code == 400
    options = ["--atlas-plugin", "summaries", *memory_options(tmp_path)]
    server = start_server(options)
    answer = chat(server, 20).json()
    assert answer["usage"]["prompt_tokens"] < 1800
    assert made(server) == 1
    # The same summary serves again, so that the prompt begins as before.
    again = chat(server, 21).json()
    assert made(server) == 1
    assert again["timings"]["cache_n"] > answer["usage"]["prompt_tokens"] * 0.9
    server.stop()
    restarted = start_server(options)
    assert chat(restarted, 21).status_code == 200
    assert made(restarted) == 0
