"""The `atlas` command."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest
from typer.testing import CliRunner

from atlas_cli import app
from atlas_cli.simulation import LOADS, write_trace
from atlas_cli.sizes import format_bytes, parse_bytes
from atlas_plugin.version import HOOK_API, __version__
from tests.builtins import BUILTIN

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """run(*arguments): the exit status, and all that was printed, without colours and frames."""
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "200")

    def ran(*arguments: object) -> tuple[int, str]:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        return result.exit_code, re.sub(r"[\s│]+", " ", result.output)

    return ran


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.jsonl.xz"
    write_trace(path, LOADS["shift"](200, 400, 1))
    return path


def test_version(run: Run) -> None:
    assert run("--version") == (0, f"atlas {__version__} ")


def test_help_names_the_commands(run: Run) -> None:
    status, text = run("--help")
    assert status == 0
    assert "simulate" in text
    assert "generate-trace" in text


def test_table(run: Run, trace: Path) -> None:
    status, text = run("simulate", trace, "--blocks", "100,200", "--policy", "lru", "--policy", "adaptive")
    assert status == 0
    assert "200 requests, 4,000 blocks" in text
    for row in r"100 lru", r"adaptive", r"200 lru":
        assert re.search(rf"{row} 0\.\d{{4}} 0\.\d{{4}} 0\.\d{{4}} \d+\.\d\d", text), text


def test_json(run: Run, trace: Path) -> None:
    status, text = run("simulate", trace, "--blocks", "100", "--format", "json")
    rows = msgspec.json.decode(text)
    assert status == 0
    assert [row["policy"] for row in rows] == ["adaptive", "lru", "lfu", "belady"]
    for row in rows:
        assert row["capacity"] == 100
        assert row["prefix_rate"] == row["prefix_hits"] / row["blocks"]
        assert 0 < row["prefix_rate"] <= row["block_rate"] < 1


def test_bytes_are_blocks_times_their_size(run: Run, trace: Path) -> None:
    by_size, by_number = (
        msgspec.json.decode(run("simulate", trace, "--format", "json", "--policy", "adaptive", *options)[1])[
            0
        ]
        for options in (("--budget", "100MiB", "--block-bytes", "1MiB"), ("--blocks", "100"))
    )
    assert by_size["capacity"] == 100 << 20
    assert by_size["prefix_hits"] == by_number["prefix_hits"]
    assert (
        "100 MiB lru"
        in run("simulate", trace, "--policy", "lru", "--budget", "100MiB", "--block-bytes", "1MiB")[1]
    )


def test_plot(run: Run, trace: Path, tmp_path: Path) -> None:
    path = tmp_path / "plot.svg"
    status, _ = run(
        "simulate", trace, "--blocks", "200,100,400", "--policy", "lru", "--policy", "lfu", "--plot", path
    )
    assert status == 0
    picture = ElementTree.parse(path).getroot()
    lines = picture.findall("{*}polyline")
    assert len(lines) == 2
    for line in lines:
        places = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
        assert places == sorted(places)
        assert len(places) == 3
        assert [y for _, y in places] == sorted((y for _, y in places), reverse=True), "more room, more hits"
    texts = {text.text for text in picture.findall("{*}text")}
    assert {"lru", "lfu", "100", "200", "400"} <= texts


def test_plot_of_one_capacity_without_hits(run: Run, tmp_path: Path) -> None:
    trace, plot = tmp_path / "trace.jsonl", tmp_path / "plot.svg"
    write_trace(trace, LOADS["loop"](5, 100, 1))
    assert run("simulate", trace, "--blocks", "10", "--plot", plot)[0] == 0
    ElementTree.parse(plot)


def test_generated_traces_can_be_simulated(run: Run, tmp_path: Path) -> None:
    for load in LOADS:
        path = tmp_path / f"{load}.jsonl.gz"
        assert run("generate-trace", load, path, "--requests", 50, "--blocks", 200) == (0, "")
        assert run("simulate", path, "--blocks", "100", "--policy", "adaptive")[0] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--policy", "fifo"], "there is no policy 'fifo'; the policies are lru, lfu, adaptive, lfu-classic"),
        (["--blocks", "10,x"], "'x' is no whole number of at least 1"),
        (["--blocks", "0"], "'0' is no whole number of at least 1"),
        (["--blocks", ""], "'' is no whole number of at least 1"),
        (["--budget", "1MiB"], "needs --block-bytes"),
        (["--block-bytes", "1MiB"], "has a meaning only with --budget"),
        (["--budget", "1MiB", "--block-bytes", "1", "--blocks", "1"], "give either --blocks or --budget"),
        (["--budget", "1MB", "--block-bytes", "1"], "'1MB' is no size; write a whole number and B, KiB,"),
        (["--budget", "1", "--block-bytes", "1,2"], "takes one size"),
        (["--block-tokens", "0"], "Invalid value for '--block-tokens'"),
        (["--format", "xml"], "'xml' is not one of"),
    ],
)
def test_wrong_use_is_named(run: Run, trace: Path, options: list[str], message: str) -> None:
    status, text = run("simulate", trace, *options)
    assert status == 2
    assert message in text


def test_a_wrong_line_is_named(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text('{"input_length": 1, "hash_ids": [1]}\n{"input_length": "x", "hash_ids": [1]}\n')
    status, text = run("simulate", path)
    assert (status, text) == (
        1,
        f"atlas: {path}, line 2: input_length: must be a whole number of at least 1 ",
    )


def test_a_missing_library_is_named(run: Run, trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "libcachesim", None)
    status, text = run("simulate", trace, "--policy", "lirs", "--blocks", "10")
    assert status == 1
    assert "atlas: policy 'lirs' needs the package libcachesim" in text


def test_files_that_cannot_be_written(run: Run, trace: Path, tmp_path: Path) -> None:
    place = tmp_path / "missing" / "file"
    for command in (
        ("simulate", trace, "--policy", "lru", "--blocks", "10", "--plot", place),
        ("generate-trace", "scan", place),
    ):
        status, text = run(*command)
        assert status == 1
        assert f"atlas: {place}: cannot be written: " in text


def test_sizes() -> None:
    assert parse_bytes("1, 3KiB,2 GiB") == [1, 3 << 10, 2 << 30]
    assert [format_bytes(size) for size in (7, 3 << 10, 1536, 5 << 40, 5000 << 20)] == [
        "7 B",
        "3 KiB",
        "1,536 B",
        "5 TiB",
        "5,000 MiB",
    ]


class TestNewPlugin:
    def test_every_file_has_the_name(self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        status, text = run("plugin", "new", "word_count")
        assert status == 0, text
        assert "cd word_count python -m pip install -e '.[test]' python -m pytest" in text
        files = {path.name: path.read_text() for path in (tmp_path / "word_count").iterdir()}
        assert files.keys() == {"pyproject.toml", "README.md", "word_count.py", "test_word_count.py"}
        for written in files.values():
            assert "word_count" in written
            assert "my_plugin" not in written
        assert f"\nATLAS_API = {HOOK_API} " in files["word_count.py"]

    @pytest.mark.parametrize(
        ("name", "problem"),
        [
            ("a-b", "'a-b' is no name of a module"),
            ("../a", "'../a' is no name of a module"),
            ("9a", "'9a' is no name of a module"),
            ("größe", "'größe' is no name of a module"),
            ("class", "'class' is no name of a module"),
            ("", "'' is no name of a module"),
            ("json", "there is a module 'json' in this environment already"),
            ("atlas_plugin", "there is a module 'atlas_plugin' in this environment already"),
            *((name, f"'{name}' is a plugin of ATLAS's own") for name in BUILTIN),
        ],
    )
    def test_names_that_cannot_be(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, problem: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        status, text = run("plugin", "new", name)
        assert status == 2
        assert problem in text
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("make", [Path.mkdir, Path.touch])
    def test_what_is_there_stays(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None]
    ) -> None:
        monkeypatch.chdir(tmp_path)
        make(tmp_path / "sums")
        status, text = run("plugin", "new", "sums")
        assert (status, text) == (
            1,
            "atlas: there is a 'sums' here already: remove it, or choose another name or directory ",
        )
        assert (tmp_path / "sums").is_file() or list((tmp_path / "sums").iterdir()) == []

    def test_a_place_that_cannot_be_written(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "gone").mkdir()
        monkeypatch.chdir(tmp_path / "gone")
        (tmp_path / "gone").rmdir()
        status, text = run("plugin", "new", "sums")
        assert status == 1
        assert "atlas: sums: cannot be made: " in text


def test_nothing_of_the_server_imports_what_is_of_the_command() -> None:
    code = """
import importlib, pkgutil, sys
import atlas_plugin
names = [one.name for one in pkgutil.walk_packages(atlas_plugin.__path__, "atlas_plugin.")]
for name in names:
    importlib.import_module(name)
print(len(names), *sorted({name.partition(".")[0] for name in sys.modules}))
"""
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    count, *imported = run.stdout.split()
    assert int(count) > 50
    assert not {"atlas_cli", "typer", "rich", "pydantic"} & {*imported}
