"""What a plugin is told, which hooks it needs, and when `periodic` is called."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from atlas_plugin import PluginInfo
from atlas_plugin.testing import Application, FakeHost

CONFIG = """
from typing import Annotated
from msgspec import Meta, Struct
from atlas_plugin import hookimpl

class Config(Struct, forbid_unknown_fields=True):
    url: str
    retries: Annotated[int, Meta(ge=0, le=10)] = 3
    names: list[str] = []
    is_loud: bool = False

@hookimpl
def configure(config: Config):
    global told
    told = config

@hookimpl
def register_routes(routes):
    @routes.get("/v1/atlas/x/told")
    def show(request):
        return [told.url, told.retries, told.names, told.is_loud]
"""
Start = Callable[..., tuple[Application, FakeHost]]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """An application with one plugin, "one-plugin", and a configuration file."""

    def start(plugin: str, file: str = "") -> tuple[Application, FakeHost]:
        path = tmp_path / "one-plugin.py"
        path.write_text(plugin)
        toml = tmp_path / "atlas.toml"
        toml.write_text(file)
        host = FakeHost(plugins=[str(path)])
        host.config_file = str(toml)
        application = Application(host)
        application.start()
        return application, host

    return start


def told(application: Application) -> bytes:
    from atlas_plugin import Request

    body = application.handle(Request("GET", "/v1/atlas/x/told"))
    return getattr(body, "body", b"")


def failed(application: Application) -> PluginInfo:
    (info,) = application.plugins.failed
    assert info.name == "one-plugin"
    return info


def test_the_file_tells(start: Start) -> None:
    application, _ = start(CONFIG, '[plugins.one-plugin]\nurl = "http://a"\nnames = ["x"]')
    assert told(application) == b'["http://a",3,["x"],false]'


def test_the_environment_wins(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATLAS_PLUGIN_ONE_PLUGIN_URL", "[http://b]")
    monkeypatch.setenv("ATLAS_PLUGIN_ONE_PLUGIN_RETRIES", "7")
    monkeypatch.setenv("ATLAS_PLUGIN_ONE_PLUGIN_NAMES", '["y","z"]')
    monkeypatch.setenv("ATLAS_PLUGIN_ONE_PLUGIN_IS_LOUD", "true")
    application, _ = start(CONFIG, '[plugins.one-plugin]\nurl = "http://a"')
    assert told(application) == b'["[http://b]",7,["y","z"],true]'


@pytest.mark.parametrize(
    ("file", "problem"),
    [
        ("", "missing required field `url`"),
        ('[plugins.one-plugin]\nurl = "x"\nretries = 11', "`int` <= 10 - at `retries`"),
        ('[plugins.one-plugin]\nurl = "x"\nretires = 1', "unknown field `retires`"),
        ("[plugins.one-plugin]\nurl = []", "Expected `str`, got `array` - at `url`"),
    ],
)
def test_what_does_not_fit_is_refused(start: Start, file: str, problem: str) -> None:
    error = failed(start(CONFIG, file)[0]).error
    assert error is not None
    assert problem in error
    assert "[plugins.one-plugin] of the configuration file" in error
    assert "ATLAS_PLUGIN_ONE_PLUGIN_FIELD" in error


@pytest.mark.parametrize("configure", ["configure(config)", "configure(config: int)", "configure()"])
def test_a_type_is_needed(start: Start, configure: str) -> None:
    plugin = f"from atlas_plugin import hookimpl\n@hookimpl\ndef {configure}: pass"
    assert "configure must say what it takes" in str(failed(start(plugin)[0]).error)


def test_a_table_for_one_that_takes_none(start: Start) -> None:
    plugin = "from atlas_plugin import hookimpl\n@hookimpl\ndef startup(): pass"
    application, host = start(plugin, "[plugins.one-plugin]\na = 1\n[plugins.other]\na = 1")
    assert "remove [plugins.one-plugin]" in str(failed(application).error)
    assert "[plugins.other] of the configuration file is for no plugin" in host.log_text


@pytest.mark.parametrize("version", ["2", "0", "'1'"])
def test_another_version_of_the_hooks_is_refused(start: Start, version: str) -> None:
    plugin = f"from atlas_plugin import hookimpl\nATLAS_API = {version}\n@hookimpl\ndef startup(): pass"
    assert f"it needs version {version.strip(chr(39))} of the hooks" in str(failed(start(plugin)[0]).error)


def test_this_version_is_taken_and_the_description_shown(start: Start) -> None:
    text = '"""Says hello.\n\nMore."""\nfrom atlas_plugin import *\nATLAS_API = HOOK_API\n'
    plugin = text + "@hookimpl\ndef startup(): pass"
    application, _ = start(plugin)
    assert application.plugins.infos()[-1].description == "Says hello."
    assert not application.plugins.failed


def test_periodic_is_called_again_whatever_it_raises(start: Start) -> None:
    plugin = """
from atlas_plugin import hookimpl
import threading

called = threading.Semaphore(0)
threading.called_by_test = called

@hookimpl(seconds=0.01)
def periodic():
    called.release()
    raise ValueError("every time")
"""
    application, host = start(plugin)
    called: threading.Semaphore = threading.called_by_test  # type: ignore[attr-defined]
    for _ in range(3):
        assert called.acquire(timeout=60)
    assert "plugin 'one-plugin' failed in periodic" in host.log_text
    application.stop()
    while called.acquire(blocking=False):
        pass
    assert not called.acquire(timeout=0.1)


@pytest.mark.parametrize("mark", ["", "(seconds=0)", "(seconds=1, priority=2)", "(deadline_ms=5)"])
def test_periodic_needs_its_seconds_alone(start: Start, mark: str) -> None:
    plugin = f"from atlas_plugin import hookimpl\n@hookimpl{mark}\ndef periodic(): pass"
    assert "seconds" in str(failed(start(plugin)[0]).error)
