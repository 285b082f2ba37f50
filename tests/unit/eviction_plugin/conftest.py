import textwrap
from pathlib import Path

import pytest

from atlas_plugin.builtin import eviction
from atlas_plugin.host import worker
from atlas_plugin.testing import FakeHost
from tests.unit.eviction_plugin.driving import HostWith


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((eviction, "POLL_S"), (eviction, "WAIT_FOR_MEMORY_S"), (worker, "RETRY_S")):
        monkeypatch.setattr(module, name, 0.002)


@pytest.fixture
def host_with(tmp_path: Path) -> HostWith:
    """host_with(source, …): a host with a memory path, and a plugin of each source, named p0, p1 …"""

    def made(*sources: str) -> FakeHost:
        paths = [tmp_path / f"p{number}.py" for number in range(len(sources))]
        for path, source in zip(paths, sources, strict=True):
            path.write_text("from atlas_plugin import hookimpl\n" + textwrap.dedent(source))
        return FakeHost(memory_save_path=str(tmp_path / "memory"), plugins=[str(path) for path in paths])

    return made
