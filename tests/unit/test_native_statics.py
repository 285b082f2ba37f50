"""native/statics.txt names all that outlives the objects of native/, by the symbols of what was compiled."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

from atlas_build.statics import Static, problems, read, variables
from tests.server.harness import REPOSITORY

NATIVE = REPOSITORY / "native"
BUILD = REPOSITORY / "build"
TESTS = ("tests", "bench", "fuzz", "examples")

SOURCE = """
#include <atomic>
#include <string>

static const char * const NAMES[] = {"a", "b"};
static constexpr int      LIMIT   = 5;

namespace {
std::atomic<int> in_a_namespace;
}

struct of_a_class {
    static inline long counted = 1;
};

thread_local int of_a_thread = LIMIT;

const char * f(int at) {
    static std::atomic<const char *> in_a_function{"b"};
    static const std::string MADE = NAMES[at];
    of_a_thread += in_a_namespace++ + of_a_class::counted++;
    return in_a_function.exchange(MADE.c_str());
}
"""


def compiled() -> Iterator[tuple[str, str]]:
    """The variables of all that is built into the server, each with the path of its source in native/."""
    for command in json.loads((BUILD / "compile_commands.json").read_text(encoding="utf-8")):
        source = Path(command["file"])
        if source.is_relative_to(NATIVE) and not set(source.relative_to(NATIVE).parts) & set(TESTS):
            for name in variables(BUILD / command["output"]):
                yield source.relative_to(NATIVE).as_posix(), name


def test_the_tree_has_no_others() -> None:
    entries = read(NATIVE / "statics.txt")
    assert list(problems(compiled(), entries)) == []
    assert [entry.path for entry in entries if not (NATIVE / entry.path).is_file()] == []


def test_finds_variables_of_all_kinds(tmp_path: Path) -> None:
    (tmp_path / "own.cpp").write_text(SOURCE, encoding="utf-8")
    subprocess.run(["c++", "-std=c++17", "-O2", "-fPIC", "-c", "own.cpp"], cwd=tmp_path, check=True)
    assert sorted(variables(tmp_path / "own.o")) == [
        "(anonymous namespace)::in_a_namespace",
        # No symbol table tells a constant that is made when the program runs from what may change.
        "f(int)::MADE",
        "f(int)::in_a_function",
        "of_a_class::counted",
        "of_a_thread",
    ]


def test_tells_what_is_wrong() -> None:
    entries = [
        Static("core/a.cpp", "known", "one a process"),
        Static("core/a.hpp", "f(*)::of_a_header", "likewise"),
        Static("core/b.cpp", "gone", ""),
        Static("core/b.cpp", "TEXT", "Constant: a text"),
    ]
    found = [("core/a.cpp", "known"), ("core/b.cpp", "known"), ("core/b.cpp", "f(int)::of_a_header")]
    assert list(problems(found, entries)) == [
        "core/b.cpp has the variable known, which outlives every object",
        "core/b.cpp: gone has no reason",
        "core/b.cpp has no gone any more",
    ]
