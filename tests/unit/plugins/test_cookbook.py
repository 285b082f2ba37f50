"""The configurations that the cookbook's pages show are what the plugins take."""

import importlib
import re
import tomllib
from typing import Any

import pytest

from atlas_plugin.host import plugin_config
from tests.server.harness import REPOSITORY

PAGES = sorted(REPOSITORY.glob("docs/cookbook/[a-z]*.md"))
TABLES = [
    pytest.param(name, table, id=f"{page.stem}: {name}")
    for page in PAGES
    for block in re.findall(r"^```toml\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)
    for name, table in tomllib.loads(block).get("plugins", {}).items()
]


@pytest.mark.parametrize(("name", "table"), TABLES)
def test_a_configuration_of_the_cookbook(name: str, table: dict[str, Any]) -> None:
    plugin = importlib.import_module(f"atlas_plugin.plugins.{name}").Plugin()
    kind = plugin_config.config_type(name, plugin.configure)
    assert plugin_config.convert(name, kind, table, {})


def test_there_are_some() -> None:
    assert TABLES
