"""Stacks of perf, folded and drawn."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from load.cpu_profile import read_stacks, share_table
from load.flamegraph import Frame, boxes, draw, fold
from tests.server.harness import REPOSITORY

PRINTED = """
            7f01 ggml_vec_dot_f16 (/b/build/bin/libggml-cpu.so.0.25.3)
            7f02 llama_context::decode(llama_batch const&) (/b/build/bin/libllama.so.0.5.0)
            55aa main (/b/build/bin/llama-server)

            7f03 llama_context::decode(llama_batch const&) (/b/build/bin/libllama.so.0.5.0)
            55aa main (/b/build/bin/llama-server)

ffffffff8100 do_futex ([kernel.kallsyms])
            7f09 atlas::memory::store::publish(int) (/b/build/bin/libllama-server-impl.so)
            55aa main (/b/build/bin/llama-server)

            7f03 llama_context::decode(llama_batch const&) (/b/build/bin/libllama.so.0.5.0)
            55aa main (/b/build/bin/llama-server)

            7f0b _PyEval_EvalFrameDefault (/usr/lib/x86_64-linux-gnu/libpython3.11.so.1.0)
            7f0c [unknown] (/b/build/bin/libatlas-python.so)
"""
MAIN = Frame("main", "llama-server")
DECODE = Frame("llama_context::decode(llama_batch const&)", "libllama")
DOT = Frame("ggml_vec_dot_f16", "libggml-cpu")
STORE = (MAIN, Frame("atlas::memory::store::publish(int)", "ATLAS"), Frame("do_futex", "kernel"))
PYTHON = (Frame("[unknown]", "ATLAS"), Frame("_PyEval_EvalFrameDefault", "libpython3.11"))


def test_stacks_begin_with_the_outermost_frame() -> None:
    found = read_stacks(PRINTED.splitlines(keepends=True))
    assert found == {(MAIN, DECODE): 2, (MAIN, DECODE, DOT): 1, STORE: 1, PYTHON: 1}
    assert f"main;{DECODE.function} 2\n" in fold(found)


def test_equal_frames_of_neighbours_are_one_box() -> None:
    found = boxes(Counter({(MAIN, DECODE): 2, (MAIN, DECODE, DOT): 1, (MAIN,): 1}))
    places = {(box.frame, box.depth): (box.begin, box.end) for box in found}
    assert places == {(MAIN, 0): (0, 4), (DECODE, 1): (1, 4), (DOT, 2): (3, 4)}


def test_the_page_holds_all_it_needs_and_the_table_own_time() -> None:
    found = read_stacks(PRINTED.splitlines(keepends=True))
    text = draw("a title", found)
    assert "a title" in text
    assert "ggml_vec_dot_f16" in text
    assert 'src="http' not in text
    shares = [tuple(row) for row in share_table({"one": found}).rows]
    rest = {(library, "20.00%") for library in ("libggml-cpu", "kernel", "libpython3.11")}
    assert shares[0] == ("libllama", "40.00%")
    assert set(shares[1:]) == rest


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (None, "there is no perf; Debian has it in linux-perf"),
        ("echo No permission. >&2; exit 1", "sysctl kernel.perf_event_paranoid=1. It said:\nNo permission."),
    ],
)
def test_without_perf_it_says_what_is_needed(tmp_path: Path, script: str | None, expected: str) -> None:
    if script is not None:
        perf = tmp_path / "perf"
        perf.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        perf.chmod(0o755)
    command: list[str | Path] = [sys.executable, "-m", "load.cpu_profile", "--output", tmp_path / "reports"]
    environment = os.environ | {"PATH": str(tmp_path)}
    ended = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.startswith("profile: ")
    assert expected in ended.stderr
    assert not (tmp_path / "reports").exists()
