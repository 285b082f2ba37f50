"""The commands that measure, for a few seconds: they work, whatever they measure."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from load.benchmark.servers import CASES, STOCK
from load.hooks import PLUGINS
from load.soak import ALLOWED_RISE
from tests.server.harness import REPOSITORY

TRACE_LINE = {"timestamp": 0, "input_length": 1024, "output_length": 8, "hash_ids": [1, 2]}


def run(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *map(str, words)]
    variables = {**os.environ, **environment}
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, env=variables)


def test_bench_measures_each_server_in_each_round(tmp_path: Path) -> None:
    trace, output = tmp_path / "trace.jsonl", tmp_path / "reports"
    trace.write_text("".join(json.dumps(TRACE_LINE) + "\n" for _ in range(3)), encoding="utf-8")
    size = "--rounds", "2", "--requests", "2"
    ended = run(
        "load.benchmark", "--only", "servers", "--only", "trace", *size, "--trace", trace, "--output", output
    )
    assert ended.returncode == 0, ended.stderr
    report = json.loads((output / "report.json").read_text(encoding="utf-8"))
    assert report["servers"].keys() == {case.name for case in CASES}
    figures = set(report["servers"][STOCK])
    for found in report["servers"].values():
        assert found.keys() >= figures
        assert all(len(values) == 2 and min(values) > 0 for values in found.values())
    assert {result["policy"] for result in report["trace"]} >= {"adaptive", "lru", "lfu"}
    assert ended.stdout.strip() == (output / "report.md").read_text(encoding="utf-8").strip()
    assert "<svg" in (output / "report.html").read_text(encoding="utf-8")


def test_soak_watches_the_server(tmp_path: Path) -> None:
    ended = run("load.soak", "--minutes", "0.1", "--output", tmp_path)
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    samples = report["samples"]
    assert len(set(map(len, samples.values()))) == 1
    assert report["requests"]["200"] > 0
    assert report["after"] == report["before"], "all threads and descriptors are gone"
    flat = all(report["rises"][name] <= allowed for name, allowed in ALLOWED_RISE.items())
    assert ended.returncode == (0 if flat else 1), ended.stderr
    assert "<svg" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_embedding_is_measured_in_all_parts() -> None:
    ended = run("load.embedding", "--rounds", "1", "--requests", "32", "--demo-only")
    assert ended.returncode == 0, ended.stderr
    rows = [line.split(" | ") for line in ended.stdout.splitlines() if line.startswith("| ")]
    named = {row[0].removeprefix("| ") for row in rows}
    assert named >= {"the HTTP example", "llama-server", "demo, 2M, f16", "not held", "1 ms"}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("load.benchmark", "--rounds", "0"), "argument --rounds: '0' is no whole number of at least 1"),
        (("load.benchmark", "--only", "trace"), "--only trace needs --trace FILE"),
        (("load.benchmark", "--trace", "missing.jsonl"), "there is no file 'missing.jsonl'"),
        (("load.embedding", "--rounds", "0"), "argument --rounds: '0' is no whole number of at least 1"),
        (("load.soak", "--minutes", "no"), "argument --minutes: 'no' is no number above 0"),
    ],
)
def test_wrong_arguments_are_named(words: tuple[str, ...], expected: str) -> None:
    ended = run(*words)
    assert ended.returncode == 2
    assert expected in ended.stderr


def test_hooks_are_measured_against_none() -> None:
    ended = run("load.hooks", "--rounds", "1", "--scale", "5")
    assert ended.returncode == 0, ended.stderr
    rows = [line.strip("| ").split(" | ") for line in ended.stdout.splitlines() if line.startswith("| ")]
    assert {row[1] for row in rows} >= set(PLUGINS)
    waited = {row[1]: float(row[-1].split()[0]) for row in rows if PLUGINS.get(row[1])}
    assert min(waited.values()) > 0


def test_routing_is_measured_with_the_routers_that_are_there(tmp_path: Path) -> None:
    ended = run("load.routing", "--conversations", "2", "--turns", "2", PATH=str(tmp_path))
    assert ended.returncode == 0, ended.stderr
    (row,) = (line.split(" | ") for line in ended.stdout.splitlines() if line.startswith("| one server"))
    assert int(row[1].removesuffix(" %")) > 30
    assert row[2] == "4 of 4 |"
    for name in ("smg", "vllm-router", "haproxy"):
        assert f"{name} is not found" in ended.stdout
