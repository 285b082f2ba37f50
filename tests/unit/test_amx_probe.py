"""cmake/AtlasAmx.cmake leaves AMX out of the CPU backend where the probe cannot run it."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
CMAKE = Path(sys.executable).with_name("cmake")

PROJECT = """
cmake_minimum_required(VERSION 3.18)
project(probe C)
include({module})
file(WRITE backend.c "")
add_library(ggml-cpu STATIC ${{CMAKE_CURRENT_SOURCE_DIR}}/backend.c)
target_compile_options(ggml-cpu PRIVATE {options})
atlas_disable_broken_amx()
get_target_property(result ggml-cpu COMPILE_OPTIONS)
message(STATUS "options: ${{result}}")
"""


def configure(directory: Path, options: str, *arguments: str) -> str:
    module = REPOSITORY / "cmake/AtlasAmx.cmake"
    (directory / "backend.c").touch()
    (directory / "CMakeLists.txt").write_text(PROJECT.format(module=module, options=options))
    command = [str(word) for word in (CMAKE, "-S", directory, "-B", directory / "build", *arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def has_amx() -> bool:
    return "amx_tile" in Path("/proc/cpuinfo").read_text()


def test_without_amx_in_the_compiler_nothing_changes(tmp_path: Path) -> None:
    assert "options: -O2\n" in configure(tmp_path, "-O2")


@pytest.mark.parametrize("defines", ["-D__AMX_TILE__", "-mamx-tile"])
def test_amx_that_faults_is_left_out(tmp_path: Path, defines: str) -> None:
    # The first stands for a machine whose kernel refuses tiles; the second compiles the real instruction in.
    if defines == "-mamx-tile" and has_amx():
        return  # it may well run here, and then nothing is to be shown
    output = configure(tmp_path, "-O2", f"-DCMAKE_C_FLAGS={defines}")
    assert "options: -O2;-mno-amx-tile;-mno-amx-int8;-mno-amx-bf16\n" in output
