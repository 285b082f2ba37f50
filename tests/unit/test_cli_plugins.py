"""Commands that plugins add to `atlas`."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from atlas_cli import app
from atlas_plugin.testing import Application, FakeHost
from tests.unit.test_cli import Run, run

__all__ = ["run"]

WORDS = """
from atlas_plugin import hookimpl

print("imported {name}")


@hookimpl
def register_commands(commands):
    @commands.command()
    def count_words(text: str, times: int = 1):
        "Say how many words there are."
        print(len(text.split()) * times)

    @commands.command("{name}")
    def own():
        print("this is {name}")
"""
Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, source: str) -> Path:
        path = tmp_path / f"{name}.py"
        path.write_text(source.replace("{name}", name))
        return path

    return write


def test_a_plugin_that_is_named(run: Run, write: Write) -> None:
    path = write("words", WORDS)
    assert run("--plugin", path, "count-words", "a b c", "--times", "2") == (0, "imported words 6 ")
    assert run("count-words", "a")[0] == 2
    status, text = run("--plugin", path, "--help")
    assert status == 0
    assert "count-words Say how many words there are." in text
    assert "simulate" in text


def test_a_plugin_of_the_environment(run: Run, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("words", WORDS)
    monkeypatch.setenv("ATLAS_PLUGINS", f" {path} ,")
    assert run("words") == (0, "imported words this is words ")
    monkeypatch.setenv("ATLAS_PLUGINS", f"{path},no:words")
    assert run("words")[0] == 2
    monkeypatch.delenv("ATLAS_PLUGINS")
    monkeypatch.setenv("ATLAS_PLUGINS_DIR", str(path.parent))
    assert run("words") == (0, "imported words this is words ")


@pytest.mark.parametrize(
    ("source", "warning"),
    [
        ("1 / 0", "plugin 'bad' is left out: ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "plugin 'bad' is left out: SystemExit: 3"),
        (
            "from atlas_plugin import hookimpl\n@hookimpl\ndef register_commands(commands): 1 / 0",
            "the commands of plugin 'bad' are left out: ZeroDivisionError: division by zero",
        ),
        (
            "from atlas_plugin import hookimpl\n@hookimpl\ndef register_commands(commands):\n"
            "    @commands.command()\n    def odd(x: list[list[int]]): pass",
            "the commands of plugin 'bad' are left out: AssertionError: List types with complex",
        ),
        (
            "from atlas_plugin import hookimpl\n@hookimpl\ndef register_commands(commands):\n"
            "    @commands.command()\n    def simulate(): pass",
            "plugin 'bad' has a command 'simulate', as there is one already: left out",
        ),
    ],
)
def test_one_that_fails_is_left_out(run: Run, write: Write, source: str, warning: str) -> None:
    bad, good = write("bad", source), write("words", WORDS)
    named = ("--plugin", bad, "--plugin", good)
    status, text = run(*named, "words")
    assert status == 0
    assert f"atlas: warning: {warning}" in text
    assert text.endswith("this is words ")
    status, text = run(*named, "simulate", "--help")
    assert status == 0
    assert "Replay a trace" in text


def test_a_name_that_another_plugin_has(run: Run, write: Write) -> None:
    first, second = write("words", WORDS), write("more", WORDS)
    status, text = run("--plugin", first, "--plugin", second, "more")
    assert status == 0
    assert "plugin 'more' has a command 'count-words', as there is one already" in text
    assert text.endswith("this is more ")


def test_commands_of_atlas_import_no_plugin(run: Run, write: Write) -> None:
    path = write("words", WORDS)
    for arguments in (("--version",), ("simulate", "--help"), ("plugin", "--help")):
        status, text = run("--plugin", path, *arguments)
        assert status == 0
        assert "imported" not in text


def test_a_plugin_that_is_installed(tmp_path: Path, write: Write) -> None:
    write("counting", WORDS)
    metadata = tmp_path / "counting-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: counting\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[atlas.plugins]\ncounting = counting\n")
    answer = subprocess.run(
        [sys.executable, "-c", "from atlas_cli import app; app()", "count-words", "one two"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout == "imported counting\n2\n"


def test_the_server_loads_it_too(write: Write) -> None:
    with Application(FakeHost(plugins=[str(write("words", WORDS))])) as application:
        [info] = (one for one in application.plugins.infos() if one.name == "words")
        assert (info.state, info.hooks) == ("active", ("register_commands",))


def test_the_example_in_the_documentation(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/plugins.md").read_text(encoding="utf-8")
    (source,) = (
        code for code in re.findall(r"```python\n(.*?)```", page, re.S) if "register_commands" in code
    )
    plugin, text = tmp_path / "words.py", tmp_path / "text"
    plugin.write_text(source)
    text.write_text("some words are long")
    result = CliRunner().invoke(app, ["--plugin", str(plugin), "count-words", str(text), "--at-least", "4"])
    assert (result.exit_code, result.output) == (0, "3\n")
