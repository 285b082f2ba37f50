"""The check of what each room of native/ includes."""

from pathlib import Path

import pytest

from atlas_build.rooms import problems
from tests.server.harness import REPOSITORY


def test_the_tree_has_none() -> None:
    assert list(problems(REPOSITORY / "native")) == []


@pytest.mark.parametrize(
    ("room", "include", "problem"),
    [
        ("core/memory", '"llama.h"', "llama.h, which is llama.cpp's"),
        ("core/base", "<ggml-cpu.h>", "ggml-cpu.h, which is llama.cpp's"),
        ("core/memory", '"request.hpp"', "request.hpp of core/requests, which core/memory must not know"),
        ("core/runtime", '"atlas-slots.h"', "atlas-slots.h of server, which core/runtime must not know"),
        ("core/requests", '"memory/store.hpp"', None),
        ("core/requests", "<nlohmann/json.hpp>", None),
        ("core/requests", '"hash/hash.h"', None),
        ("core/requests", "<vector>", None),
        ("core/runtime", '"src/llama-ext.h"', "src/llama-ext.h, which is llama.cpp's"),
        ("llama", '"llama.h"', None),
        ("llama", '"src/llama-ext.h"', None),
        ("llama", '"memory/store.hpp"', None),
        ("llama", '"common.h"', "common.h, which is llama.cpp's"),
        ("llama", '"server-task.h"', "server-task.h, which is llama.cpp's"),
        ("llama", '"atlas-slots.h"', "atlas-slots.h of server, which llama must not know"),
        ("server", '"llama.h"', None),
    ],
)
def test_finds(tmp_path: Path, room: str, include: str, problem: str | None) -> None:
    native = tmp_path / "native"
    for name in ("core/requests/request.hpp", "core/memory/store.hpp", "server/atlas-slots.h"):
        (native / name).parent.mkdir(parents=True, exist_ok=True)
        (native / name).touch()
    (native / room).mkdir(parents=True, exist_ok=True)
    (native / room / "own.cpp").write_text(f"#include {include}\n", encoding="utf-8")
    expected = [] if problem is None else [f"native/{room}/own.cpp includes {problem}"]
    assert list(problems(native)) == expected
