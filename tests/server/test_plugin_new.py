"""What `atlas plugin new` makes: installed, tested and served in an environment of its own, offline."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.server.conftest import StartServer


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


def test_it_is_installed_tested_and_served(
    environment: Path, tmp_path: Path, start_server: StartServer
) -> None:
    python = environment / "bin/python"
    run(Path(sys.executable).with_name("atlas"), "plugin", "new", "word_count", cwd=tmp_path)
    package = tmp_path / "word_count"
    without_network = ("--no-index", "--no-deps", "--no-build-isolation")
    run(python, "-m", "pip", "install", "--quiet", *without_network, package, cwd=tmp_path)
    assert "4 passed" in run(python, "-m", "pytest", "-q", "-W", "error", cwd=package)

    server = start_server(environment={"VIRTUAL_ENV": str(environment)})
    plugins = {one["name"]: one for one in server.get("/v1/atlas/plugins").json()["data"]["plugins"]}
    found = plugins["word_count"]
    assert (found["source"], found["version"], found["state"]) == ("entry_point", "0.1.0", "active")
    assert found["hooks"] == ["on_request", "register_routes"]
    assert found["routes"] == ["GET /v1/atlas/x/word_count"]
    assert server.get("/v1/atlas/x/word_count?name=Ada").json() == {"hello": "Ada"}
