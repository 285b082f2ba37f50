"""The configurations of the cookbook work when they are pasted."""

import re
from pathlib import Path

import pytest

from atlas_plugin.testing import Application, FakeHost

COOKBOOK = Path(__file__).parents[3] / "docs/cookbook"


@pytest.mark.parametrize("name", ["audit", "guard", "pii"])
def test_configuration(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = re.findall(r"^```toml\n(.*?)^```$", (COOKBOOK / f"{name}.md").read_text(), re.M | re.S)
    assert f"[plugins.{name}" in found[0]
    for text in found:
        Path("atlas.toml").write_text(text, encoding="utf-8")
        host = FakeHost(plugins=[name])
        host.config_file = "atlas.toml"
        with Application(host) as application:
            assert name in [info.name for info in application.plugins.infos() if info.state == "active"]
