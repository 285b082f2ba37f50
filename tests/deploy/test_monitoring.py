"""Prometheus, configured as in deploy/, scrapes a loaded server for a minute and answers every query."""

import math
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

import pytest

from tests.deploy.prometheus import Prometheus
from tests.deploy.queries import RULES, Exported, panel_queries
from tests.server.completions import ENDLESS_OPTIONS, endless
from tests.server.conversations import Conversation, memory_options
from tests.server.harness import Server

KEY = "secret"
INTERVAL_S = 3  # at most as long a scrape may take, so that a busy machine has time for it
SCRAPES = 60 // INTERVAL_S
# Both layers are too small for the conversations of the load.
BUDGETS = ["--atlas-l1-cache-size", "2000000", "--atlas-l2-cache-size", "4000000"]
STRATEGIES = "lru", "lfu", "adaptive"
N_CONVERSATIONS = 12

# May stay 0: the load does not make them rise.
QUIET = {
    "Refusals",
    "Over the latency budget",
    "Disk trouble",
    "Sessions that end",
    "Pinned",
    "Hook errors",
    "Shared trouble",
}


def converse(server: Server, number: int, turn: int) -> None:
    """A turn of a conversation, each with its own strategy and way of asking."""
    atlas = {"session_id": f"session-{number}", "cache_strategy": STRATEGIES[number % 3]}
    messages = Conversation(number).asking(f"What is my name? {turn}")
    kept = {"history": "server"} if number % 4 == 0 and turn % 4 == 0 else {}
    body = {"messages": messages, "max_tokens": 8, "stream": turn % 2 == 0, "atlas": {**atlas, **kept}}
    assert server.post("/v1/chat/completions", body).status_code == 200


@contextmanager
def load(server: Server) -> Iterator[None]:
    """Conversations, bad requests, clients that leave and one that follows, until the block ends."""
    ended = threading.Event()

    def work(first: int) -> None:
        for turn in count():
            for number in range(first, N_CONVERSATIONS, 3):
                if ended.wait(0.05):
                    return
                converse(server, number, turn)
            assert server.post("/completion", {"prompt": "Hi", "n_predict": 2}).status_code == 200
            assert server.post("/completion", {"prompt": "Hi", "atlas": 1}).status_code == 400
            with endless(server):
                pass

    with ThreadPoolExecutor(3) as threads, ExitStack() as stack:
        follower = stack.enter_context(server.client.stream("GET", "/v1/atlas/metrics/stream"))
        lines = follower.iter_lines()
        assert next(lines)
        # so that no scrape, the last one neither, finds nothing in progress
        stack.enter_context(endless(server, atlas={}))
        running = [threads.submit(work, first) for first in range(3)]
        stack.callback(ended.set)
        yield
        ended.set()
        for worker in running:
            worker.result(60)


def configuration(server: Server, directory: Path) -> Path:
    """That of deploy/, with the key that its comment shows, for this server, and faster."""
    text = RULES.with_name("prometheus.yml").read_text(encoding="utf-8")
    for pattern, replacement in (
        (r"# (authorization:)", r"\1"),
        (r"# (  credentials_file: api-key)", r"\1"),
        (r"server:8080", f"127.0.0.1:{server.port}"),
        (r"alerts\.yml", str(RULES)),
        (r"15s", f"{INTERVAL_S}s"),
    ):
        text, replaced = re.subn(pattern, replacement, text)
        assert replaced, pattern
    (directory / "api-key").write_text(KEY, encoding="utf-8")
    config = directory / "prometheus.yml"
    config.write_text(text, encoding="utf-8")
    return config


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("server")
    shared = tmp_path_factory.mktemp("shared")
    options = [
        *memory_options(directory),
        *BUDGETS,
        *ENDLESS_OPTIONS,
        "--atlas-shared-url",
        f"file://{shared}",
    ]
    with Server(options, directory=directory, api_key=KEY) as running:
        yield running


@pytest.fixture(scope="module")
def prometheus(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus once it has scraped the loaded server for a minute; the load goes on."""
    directory = tmp_path_factory.mktemp("prometheus")
    with load(server), Prometheus(configuration(server, directory), directory) as running:
        scrapes = 'sum_over_time(up{job="atlas"}[10m])'
        running.wait_until(lambda: sum(running.query(scrapes)) >= SCRAPES, 300.0)
        yield running


def test_no_scrape_was_refused(prometheus: Prometheus) -> None:
    """One that took too long is the machine's."""
    assert [line for line in prometheus.failed_scrapes() if "deadline exceeded" not in line] == []


def test_every_panel_has_data(prometheus: Prometheus) -> None:
    values: dict[str, list[float]] = {}
    for query in panel_queries():
        expression = query.expression.replace("$instance", ".*").replace("$__rate_interval", "1m")
        found = prometheus.query(expression)
        assert found, query
        values.setdefault(query.panel, []).extend(found)
    flat = {panel for panel, found in values.items() if not any(v > 0 for v in found if math.isfinite(v))}
    assert flat <= QUIET


def test_every_rule_is_evaluated(prometheus: Prometheus) -> None:
    rules = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
    assert len(rules) == len(re.findall(r"^ +- (?:alert|record): ", RULES.read_text(encoding="utf-8"), re.M))
    for rule in rules:
        assert (rule["health"], rule.get("lastError", "")) == ("ok", ""), rule
        prometheus.query(rule["query"])
        if rule["type"] == "recording":
            assert prometheus.query(rule["name"]), rule["name"]


def test_every_query_names_what_the_server_exports(prometheus: Prometheus, server: Server) -> None:
    exported = Exported.of(server.get("/v1/atlas/metrics/prometheus").text)
    exported.add("up", {})
    rules = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
    for rule in rules:
        if rule["type"] == "recording":
            exported.add(rule["name"], {})
    for expression in [*(query.expression for query in panel_queries()), *(rule["query"] for rule in rules)]:
        assert list(exported.mistakes(expression)) == [], expression


def test_mistakes_are_found() -> None:
    exported = Exported.of('# TYPE atlas_a counter\natlas_a_total{kind="x"} 1\n')
    expression = 'sum by (kind, job, sort) (rate(atlas_a_total{kind=~"x|y", more="1"}[5m])) / atlas_b'
    assert sorted(exported.mistakes(expression)) == [
        'atlas_a_total{kind="y"}',
        'atlas_a_total{more="1"}',
        "atlas_a_total{more}",
        "atlas_b",
        "sort",
    ]
