"""Runs llama.cpp's own server tests against stock, against ATLAS, and against ATLAS with a memory.

The models that the tests download are replaced by local ones, so some fail everywhere; those that pass on
stock must pass on ATLAS. One that does not is run again on its own, as some depend on time.
Exit status: 0 when none is left, else 1.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tools")]

from atlas_build.pin import read_pin  # noqa: E402
from atlas_build.source import llama_source  # noqa: E402
from atlas_build.stage_cli import LLAMA_PIN, SUBMODULE  # noqa: E402
from tests.upstream.random_models import write_bert, write_llama  # noqa: E402

TIMEOUT_S = 120
ATTEMPTS = 3


# With a memory, pages of other sites are refused that --cors-origins does not name (docs/security.md).
FOREIGN_PAGES = frozenset(
    f"unit/test_security.py::test_cors_options[{origin}-Access-Control-Allow-Origin-{origin}]"
    for origin in ("localhost", "web.mydomain.fr")
)


class Case(NamedTuple):
    """A binary, what is added to its environment, and the tests of what it does otherwise."""

    name: str
    binary: Path
    environment: Mapping[str, str]
    differs: frozenset[str] = frozenset()


def prepare(place: Path) -> None:
    """Copy what the tests read of upstream's source to `place`, where they write, too; make the models."""
    tree = llama_source(read_pin(LLAMA_PIN), SUBMODULE, REPOSITORY / "build-cache").path
    shutil.copytree(tree / "tools", place / "tools")
    (place / "models").symlink_to(tree / "models")
    (place / "local").mkdir()
    write_llama(place / "local/llama.gguf", tree / "models/ggml-vocab-llama-spm.gguf")
    write_bert(place / "local/bert.gguf", tree / "models/ggml-vocab-bert-bge.gguf")
    write_bert(place / "local/rerank.gguf", tree / "models/ggml-vocab-bert-bge.gguf", is_reranker=True)


def run(case: Case, arguments: Iterable[str], place: Path) -> dict[str, str]:
    """What became of each test: passed, failed or skipped. Raises RuntimeError when there is no telling."""
    tests, results = place / "tools/server/tests", place / "results.xml"
    command = [
        *(sys.executable, "-m", "pytest", "-p", "local_models", "-p", "no:cacheprovider"),
        *("-q", "--tb=no", f"--timeout={TIMEOUT_S}", f"--junitxml={results}", *arguments),
    ]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("ATLAS_")},
        "LLAMA_SERVER_BIN_PATH": str(case.binary),
        "ATLAS_UPSTREAM_MODELS": str(place / "local"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(tests)]),
        **case.environment,
    }
    ended = subprocess.run(command, cwd=tests, env=environment, check=False)
    if ended.returncode not in (0, 1):
        raise RuntimeError(f"pytest ended with status {ended.returncode}")
    outcomes = {}
    for test in ElementTree.parse(results).iter("testcase"):
        tags = {child.tag for child in test}
        outcome = "failed" if tags & {"failure", "error"} else "skipped" if "skipped" in tags else "passed"
        outcomes[f"{test.get('classname', '').replace('.', '/')}.py::{test.get('name')}"] = outcome
    return outcomes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write every outcome to this file")
    parser.add_argument("tests", nargs="*", default=["-m", "not slow"], help="what pytest runs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        prepare(place)
        ours = REPOSITORY / "build/bin/llama-server"
        stock = Case("stock", REPOSITORY / "build-stock/bin/llama-server", {})
        cases = [
            Case("ATLAS", ours, {"ATLAS_ENABLED": "1"}),
            Case("ATLAS with a memory", ours, {"ATLAS_MEMORY_PATH": str(place / "memory")}, FOREIGN_PAGES),
        ]
        outcomes = {case.name: run(case, options.tests, place) for case in [stock, *cases]}
        expected = {test for test, outcome in outcomes["stock"].items() if outcome == "passed"}
        lost: dict[str, list[str]] = {}
        for case in cases:
            left = sorted(
                test for test in expected - case.differs if outcomes[case.name].get(test) != "passed"
            )
            for _ in range(ATTEMPTS - 1):
                if left:
                    again = run(case, left, place)
                    left = [test for test in left if again.get(test) != "passed"]
            lost[case.name] = left
    if options.json:
        options.json.write_text(json.dumps(outcomes, indent=1), encoding="utf-8")
    print(f"\nstock: {len(expected)} of {len(outcomes['stock'])} pass")
    for case in cases:
        differing = expected & case.differs
        tests = lost[case.name]
        print(f"{case.name}: of these, {len(expected) - len(differing) - len(tests)} pass")
        for test in sorted(differing):
            print(f"  is meant to differ: {test}")
        for test in tests:
            print(f"  does not pass: {test}")
    return int(any(lost.values()))


if __name__ == "__main__":
    sys.exit(main())
