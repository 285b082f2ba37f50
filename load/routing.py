"""Measures how much of their conversations servers behind a router reuse.

Conversations go on one turn after the other, in an order drawn anew for each turn, and each turn brings the
whole conversation, as clients of a chat completion do. Counted are the prompt tokens of all turns but the
first: which part of them was reused. Every case starts servers with an empty memory each. The routers are
programs of others, which docs/fleet.md names; those that are not found are left out, and said.
"""

import argparse
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from load.arguments import positive, require_binaries
from load.machine import describe_machine
from load.report import Table
from tests.server.harness import BINARY, Server, free_port

CHAT = "/v1/chat/completions"
CONVERSATION = "X-Conversation-Id"
_TEXT = (
    "I went for a walk along the river {number} and saw a heron, which stood in the water and waited. " * 4
)

_HAPROXY = """global
    log stderr local0 warning
defaults
    mode http
    timeout connect 1s
    timeout client 10m
    timeout server 10m
frontend all
    bind 127.0.0.1:{port}
    default_backend servers
backend servers
    balance hdr(X-Conversation-Id)
    hash-type consistent
{servers}
"""


def _smg(policy: str) -> Callable[[Sequence[str], int, Path], list[str]]:
    def command(urls: Sequence[str], port: int, _directory: Path) -> list[str]:
        options = ["--host", "127.0.0.1", "--port", str(port), "--policy", policy]
        return ["smg", "launch", "--worker-urls", *urls, *options, "--prometheus-port", str(free_port())]

    return command


def _vllm(policy: str) -> Callable[[Sequence[str], int, Path], list[str]]:
    def command(urls: Sequence[str], port: int, _directory: Path) -> list[str]:
        options = ["--host", "127.0.0.1", "--port", str(port), "--policy", policy]
        return ["vllm-router", "--worker-urls", *urls, *options, "--prometheus-port", str(free_port())]

    return command


def _haproxy(urls: Sequence[str], port: int, directory: Path) -> list[str]:
    servers = "\n".join(
        f"    server {number} {url.removeprefix('http://')} check" for number, url in enumerate(urls)
    )
    path = directory / "haproxy.cfg"
    path.write_text(_HAPROXY.format(port=port, servers=servers), encoding="utf-8")
    return ["haproxy", "-f", str(path)]


ROUTERS: dict[str, Callable[[Sequence[str], int, Path], list[str]]] = {
    "`smg`, round robin": _smg("round_robin"),
    "`smg`, cache aware": _smg("cache_aware"),
    "`vllm-router`, cache aware": _vllm("cache_aware"),
    "`vllm-router`, consistent hash": _vllm("consistent_hash"),
    "HAProxy, by `X-Conversation-Id`": _haproxy,
}


@dataclass
class Reuse:
    """Of the prompts of all turns but the first."""

    prompt_tokens: int = 0
    reused_tokens: int = 0
    with_atlas: int = 0
    requests: int = 0

    @property
    def part(self) -> str:
        """In percent."""
        return f"{100 * self.reused_tokens / self.prompt_tokens:.0f} %"


@contextmanager
def running(command: Sequence[str], port: int, directory: Path) -> Iterator[str]:
    """The URL of a router, for as long as it runs."""
    with (directory / "router.log").open("ab") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        while not answers(url):
            if process.poll() is not None:
                raise RuntimeError(f"{command[0]} ended: {(directory / 'router.log').read_text()[-2000:]}")
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait()


def answers(url: str) -> bool:
    """Whether the router has a server behind it."""
    try:
        return httpx.get(f"{url}/v1/models").status_code == 200
    except httpx.TransportError:
        return False


def converse(url: str, case: int, conversations: int, turns: int, seed: int) -> Reuse:
    """All conversations, by this router; each case has its own, as servers may share a store."""
    source = random.Random(seed)
    messages: list[list[dict[str, str]]] = [[] for _ in range(conversations)]
    reuse = Reuse()
    with httpx.Client(base_url=url, timeout=600) as client:
        model = client.get("/v1/models").raise_for_status().json()["data"][0]["id"]
        for turn in range(turns):
            for number in source.sample(range(conversations), conversations):
                text = _TEXT.format(number=f"{case}.{number}.{turn}")
                messages[number].append({"role": "user", "content": text})
                body = {"model": model, "messages": messages[number], "max_tokens": 16, "atlas": {}}
                headers = {CONVERSATION: f"conversation-{number}"}
                response = client.post(CHAT, json=body, headers=headers)
                if response.is_error:
                    raise RuntimeError(f"{response.status_code} from {url}: {response.text}")
                answer = response.json()
                messages[number].append(answer["choices"][0]["message"])
                reuse.requests += 1
                reuse.with_atlas += "atlas" in answer
                if turn > 0:
                    reuse.prompt_tokens += answer["usage"]["prompt_tokens"]
                    reuse.reused_tokens += answer["timings"]["cache_n"]
    return reuse


@contextmanager
def servers(count: int, options: Sequence[str], directory: Path) -> Iterator[list[str]]:
    """The URLs of servers with a memory each."""
    with ExitStack() as stack:
        urls = []
        for number in range(count):
            place = directory / f"{number}"
            place.mkdir(parents=True)
            arguments = ["--atlas-memory-path", str(place / "memory"), "-c", "16384", *options]
            urls.append(stack.enter_context(Server(arguments, directory=place)).url)
        yield urls


def measure(
    arguments: argparse.Namespace, options: Sequence[str], directory: Path
) -> list[tuple[str, Reuse]]:
    """One server alone, and servers behind each router that is there."""
    shape = (arguments.conversations, arguments.turns, arguments.seed)
    with servers(1, options, directory / "alone") as (url,):
        found = [("one server, no router", converse(url, 0, *shape))]
    for number, (name, command_of) in enumerate(ROUTERS.items(), start=1):
        port, place = free_port(), directory / f"{number}"
        with servers(arguments.servers, options, place) as urls:
            command = command_of(urls, port, place)
            if shutil.which(command[0]) is None:
                print(f"{command[0]} is not found, so `{name}` is left out", flush=True)
                continue
            with running(command, port, place) as url:
                found.append((name, converse(url, number, *shape)))
    return found


def main() -> int:
    """The command line. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m load.routing", description=__doc__)
    parser.add_argument("--servers", type=positive, default=2, help="how many")
    parser.add_argument("--conversations", type=positive, default=7, help="how many")
    parser.add_argument("--turns", type=positive, default=4, help="of each; at least 2 say anything")
    parser.add_argument("--seed", type=int, default=1, help="of the order")
    parser.add_argument("options", nargs="*", help="for llama-server, behind --")
    arguments = parser.parse_args()
    require_binaries(parser, BINARY)
    with tempfile.TemporaryDirectory(prefix="atlas-routing-") as directory:
        found = measure(arguments, arguments.options, Path(directory))
    rows = [[name, reuse.part, f"{reuse.with_atlas} of {reuse.requests}"] for name, reuse in found]
    shape = f"{arguments.servers} servers, {arguments.conversations} conversations of {arguments.turns} turns"
    note = f"{shape}. {describe_machine()}."
    print(Table("Routing", note, ["router", "reused", "answers with `atlas`"], rows).markdown())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
