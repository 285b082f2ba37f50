"""The tutorial of docs/plugins.md, step by step, in an environment of its own and without a network."""

import json
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.server.conftest import StartServer
from tests.server.harness import REPOSITORY

PAGE = (REPOSITORY / "docs/plugins.md").read_text(encoding="utf-8")
TUTORIAL = PAGE.partition("\n## Ten minutes\n")[2].partition("\n## ")[0]
OFFLINE = ("--quiet", "--no-index", "--no-deps", "--no-build-isolation")


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A fresh environment, which sees what is installed in that of the tests."""
    made = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", made], check=True)
    [site_packages] = made.glob("lib/python3*/site-packages")
    # As a site directory, for its own .pth files to count: one of them is ATLAS's.
    line = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
    (site_packages / "tests.pth").write_text(line, encoding="utf-8")
    return made


def run(*command: str | Path, cwd: Path) -> str:
    variables = {**os.environ, "PIP_CONFIG_FILE": os.devnull, "PYTEST_ADDOPTS": ""}
    ran = subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_from_nothing_to_a_hook_that_serves(
    environment: Path, tmp_path: Path, start_server: StartServer
) -> None:
    python, package = environment / "bin/python", tmp_path / "polite"
    before, after = re.findall(r"^(\d+ passed)$", TUTORIAL, re.M)
    plugin, tests = re.findall(r"^```python\n(.*?)^```$", TUTORIAL, re.M | re.S)
    asked = re.findall(r"^\$ curl -s localhost:8080(\S+) -d '(.*)'\n(.*)$", TUTORIAL, re.M)
    assert "\n$ atlas plugin new polite\n" in TUTORIAL

    run(Path(sys.executable).with_name("atlas"), "plugin", "new", "polite", cwd=tmp_path)
    run(python, "-m", "pip", "install", *OFFLINE, "--editable", package, cwd=tmp_path)
    assert before in run(python, "-m", "pytest", "-W", "error", cwd=package)

    (package / "polite.py").write_text(plugin, encoding="utf-8")
    (package / "test_polite.py").write_text(tests, encoding="utf-8")
    assert after in run(python, "-m", "pytest", "-W", "error", cwd=package)

    server = start_server(environment={"VIRTUAL_ENV": str(environment), "ATLAS_HOOK_DEADLINE_MS": "5000"})
    (listed,) = server.get("/v1/atlas/plugins").json()["data"]["plugins"][-1:]
    assert (listed["name"], listed["source"], listed["version"]) == ("polite", "entry_point", "0.1.0")
    assert (listed["state"], listed["hooks"]) == ("active", ["on_request"])
    refused, answered = (server.post(path, json.loads(body)) for path, body, _ in asked)
    assert refused.status_code == 400
    error = json.loads(asked[0][2])["error"]
    assert refused.json()["error"] == {**error, "timestamp": refused.json()["error"]["timestamp"]}
    assert answered.status_code == 200
    # The model says it in words of its own.
    assert answered.text.startswith(asked[1][2].partition('"content":"')[0])
