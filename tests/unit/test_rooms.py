"""Which module of atlas_plugin may know which."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "atlas_plugin"


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in PACKAGE.rglob("*.py")}


def imported(path: Path) -> Iterator[str]:
    """All modules of the package that a module names in an import, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports by a relative name"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else f"{node.module}" for name in names)


IMPORTS = {name: {one for one in imported(path) if one in MODULES} for name, path in MODULES.items()}


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert len(MODULES) > 50
    assert "atlas_plugin.host.manager" in IMPORTS["atlas_plugin.host.application"]
    try:
        TopologicalSorter(IMPORTS).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("room", ["host", "storage"])
def test_mechanism_knows_no_plugin(room: str) -> None:
    reached = {name for name in MODULES if name.startswith(f"atlas_plugin.{room}")}
    while more := {one for name in reached for one in IMPORTS[name]} - reached:
        reached |= more
    assert [name for name in sorted(reached) if name.startswith("atlas_plugin.builtin")] == []


def test_what_is_on_disk_knows_no_server() -> None:
    assert {
        one for name in MODULES if name.startswith("atlas_plugin.storage") for one in IMPORTS[name]
    }.isdisjoint(name for name in MODULES if name.startswith("atlas_plugin.host"))
