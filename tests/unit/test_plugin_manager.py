"""Finding, loading, starting, stopping and reporting plugins."""

import inspect
import logging
import re
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

import atlas_plugin
from atlas_plugin import Caller, CompletionRequest, PluginError, PluginInfo, Request, Response
from atlas_plugin import plugins as ready_made
from atlas_plugin.http import Headers
from atlas_plugin.testing import Application, FakeHost
from tests.builtins import BUILTIN

ROOT = Path(__file__).parents[2]

ROUTE = """
    from atlas_plugin import hookimpl

    @hookimpl
    def register_routes(routes):
        routes.get("/v1/atlas/x/{name}")(lambda request: "{name}")
"""

HOOK = "from atlas_plugin import hookimpl\n@hookimpl\n"
BAD = {
    "missing module": ("import atlas_nowhere", "ModuleNotFoundError: No module named 'atlas_nowhere'"),
    "exit": ("raise SystemExit(3)", "SystemExit: 3"),
    "interrupt": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "syntax": ("def x(:", "SyntaxError: invalid syntax"),
    "hook name": (
        f"{HOOK}def register_route(routes): pass",
        "no hook 'register_route'; the hooks are admit, authenticate, configure, evict_order, ",
    ),
    "hook argument": (f"{HOOK}def register_routes(route): pass", "Argument(s) {'route'} are declared"),
    "hook option": (
        "from atlas_plugin import hookimpl\n@hookimpl(tryfirst=True)\ndef startup(host): pass",
        "hook 'startup': tryfirst is not supported",
    ),
    "startup": (f"{HOOK}def startup(host): 1 / 0", "ZeroDivisionError: division by zero"),
    "routes": (
        f"{HOOK}def register_routes(routes):\n"
        "    routes.get('/v1/atlas/x/a')(print)\n    routes.get('/v1/atlas/status')(print)",
        "cannot add route GET /v1/atlas/status: the path must start with /v1/atlas/x/",
    ),
}

Write = Callable[[str, str], str]
Start = Callable[[FakeHost], Application]
Call = Callable[..., Response]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """write(name, source): a plugin file, and its path as the command line would name it."""

    def written(name: str, source: str) -> str:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(source).replace("{name}", path.stem))
        return str(path)

    return written


def info(application: Application, name: str) -> PluginInfo:
    [found] = (info for info in application.plugins.infos() if info.name == name)
    return found


def document(response: Response) -> Any:
    assert response.status == 200
    return msgspec.json.decode(response.body)


class TestSources:
    def test_a_file(self, write: Write, start: Start, call: Call) -> None:
        path = write("mine.py", f"{ROUTE}\n    __version__ = '1.2'")
        application = start(FakeHost(plugins=[path]))
        assert call(application, "GET", "/v1/atlas/x/mine").body == b"mine"
        assert info(application, "mine") == PluginInfo(
            "mine",
            "file",
            path,
            "1.2",
            explicit=True,
            routes=("GET /v1/atlas/x/mine",),
            hooks=("register_routes",),
        )
        assert sys.modules["atlas_user_plugin_mine"].__file__ == path

    def test_a_module(
        self, write: Write, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write("atlas_test_module.py", ROUTE)
        write("atlas_test_alias.py", "import sys; sys.modules[__name__] = __import__('atlas_test_module')")
        monkeypatch.syspath_prepend(str(tmp_path))
        application = start(FakeHost(plugins=["atlas_test_module", "atlas_test_alias"]))
        assert info(application, "atlas_test_module").source == "module"
        assert info(application, "atlas_test_module").state == "active"
        assert (
            info(application, "atlas_test_alias").error
            == "it is loaded already, as plugin 'atlas_test_module'"
        )
        del sys.modules["atlas_test_alias"]
        del sys.modules["atlas_test_module"]

    def test_an_entry_point(
        self, write: Write, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write("atlas_test_package.py", ROUTE)
        write("atlas_test_package-3.1.dist-info/METADATA", "Name: atlas-test-package\nVersion: 3.1\n")
        write(
            "atlas_test_package-3.1.dist-info/entry_points.txt",
            "[atlas.plugins]\npackaged = atlas_test_package\n",
        )
        monkeypatch.syspath_prepend(str(tmp_path))
        application = start(FakeHost())
        packaged = info(application, "packaged")
        assert (packaged.source, packaged.location, packaged.version) == (
            "entry_point",
            "atlas_test_package",
            "3.1",
        )
        assert packaged.state == "active"
        assert not packaged.explicit
        # Naming it says that it is wanted, and is no second one.
        named = info(start(FakeHost(plugins=["packaged"])), "packaged")
        assert (named.state, named.source, named.explicit) == ("active", "entry_point", True)
        del sys.modules["atlas_test_package"]

    def test_a_directory(self, write: Write, start: Start, tmp_path: Path) -> None:
        for name in ("b.py", "a.py", "_helper.py", "notes.txt"):
            write(f"plugins/{name}", ROUTE)
        application = start(FakeHost(plugins_dir=str(tmp_path / "plugins")))
        assert [info.name for info in application.plugins.infos()] == [*BUILTIN, "a", "b"]

    def test_disabling(self, write: Write, start: Start, call: Call) -> None:
        host = FakeHost(plugins=["no:mine", write("mine.py", "raise SystemExit"), "no:config", "no:nobody"])
        application = start(host)
        assert info(application, "mine").state == "disabled"
        assert "atlas_user_plugin_mine" not in sys.modules
        assert call(application, "GET", "/v1/atlas/config").status == 404
        assert "no:nobody disables nothing" in host.log_text

    def test_a_name_that_is_taken(self, write: Write, start: Start) -> None:
        first, second = write("mine.py", ROUTE), write("other/mine.py", ROUTE)
        application = start(FakeHost(plugins=[first, second]))
        [taken, refused] = [info for info in application.plugins.infos() if info.name == "mine"]
        assert taken.state == "active"
        assert refused.state == "failed"
        assert first in (refused.error or "")


class TestFailures:
    @pytest.mark.parametrize(("source", "error"), BAD.values(), ids=BAD)
    def test_the_others_go_on(self, write: Write, start: Start, call: Call, source: str, error: str) -> None:
        host = FakeHost(plugins=[write("bad.py", source), write("good.py", ROUTE)])
        application = start(host)
        bad = info(application, "bad")
        assert bad.state == "failed"
        assert error in (bad.error or "")
        assert (bad.hooks, bad.routes) == ((), ())
        assert call(application, "GET", "/v1/atlas/x/a").status == 404
        assert call(application, "GET", "/v1/atlas/x/good").body == b"good"
        assert "plugin 'bad' failed in" in host.log_text
        assert "Traceback (most recent call last)" in host.log_text
        status = document(call(application, "GET", "/v1/atlas/status"))
        assert status["status"] == "degraded"
        assert status["data"]["plugins"] == {"active": len(BUILTIN) + 1, "failed": 1}
        assert status["problems"] == [f"plugin 'bad' failed: {bad.error}"]

    @pytest.mark.parametrize(
        ("settings", "error"),
        [
            ({"plugins": ["missing.py"]}, "there is no file .*/missing.py"),
            ({"plugins": ["atlas_missing.sub"]}, "no module 'atlas_missing' in .*: install it there"),
            ({"plugins_dir": "missing"}, "cannot read the plugins directory: .*; check --atlas-plugins-dir"),
        ],
    )
    def test_plugins_that_are_not_there(self, start: Start, settings: dict[str, Any], error: str) -> None:
        [failed] = start(FakeHost(**settings)).plugins.failed
        assert re.search(error, failed.error or "")

    def test_a_plugin_that_started_is_shut_down(self, write: Write, start: Start) -> None:
        source = """
            import logging
            from atlas_plugin import hookimpl

            @hookimpl
            def startup(): pass

            @hookimpl
            def register_routes(): raise ValueError("routes")

            @hookimpl
            def shutdown():
                logging.warning("shut down")
                raise ValueError("shutdown")
        """
        host = FakeHost(plugins=[write("bad.py", source)])
        application = start(host)
        application.stop()
        assert [text for _, text in host.records].count("root: shut down") == 1
        assert info(application, "bad").error == "ValueError: routes"

    def test_required_plugins(self, write: Write) -> None:
        bad = write("bad.py", "raise ValueError('one\\ntwo')")
        host = FakeHost(plugins=[bad, write("good.py", ROUTE)], require_python=True)
        with pytest.raises(PluginError) as caught:
            Application(host).start()
        assert caught.value.plugin == "bad"
        assert "plugin 'bad' failed: two" in str(caught.value)
        assert "--atlas-require-python or ATLAS_REQUIRE_PYTHON" in str(caught.value)

    def test_only_named_plugins_are_required(self, write: Write, start: Start, tmp_path: Path) -> None:
        write("plugins/bad.py", "raise ValueError")
        start(FakeHost(plugins_dir=str(tmp_path / "plugins"), require_python=True))

    def test_a_plugin_without_hooks(self, write: Write, start: Start) -> None:
        host = FakeHost(plugins=[write("mine.py", "def register_routes(routes): pass")])
        start(host)
        assert "plugin 'mine' has no hooks: mark its functions with @hookimpl" in host.log_text


class TestHooks:
    ORDER = """
        import logging
        from atlas_plugin import hookimpl

        @hookimpl
        def startup(plugins): logging.info("{name} up among %d", len(plugins.infos()))

        @hookimpl
        def shutdown(): logging.info("{name} down")
    """

    def test_order(self, write: Write, start: Start) -> None:
        host = FakeHost(plugins=[write(name, self.ORDER) for name in ("b.py", "a.py")])
        application = start(host)
        application.stop()
        application.stop()
        ours = [text for _, text in host.records if re.match("root: [ab] ", text)]
        n = len(BUILTIN) + 2
        assert ours == [f"root: b up among {n}", f"root: a up among {n}", "root: a down", "root: b down"]

    @pytest.mark.parametrize(
        ("result", "problem"),
        [
            ("StatusReport({'initialized': False, 'queue': 3}, ['slow'])", "slow"),
            ("1 / 0", "plugin 'mine' fails in report_status: ZeroDivisionError: division by zero"),
            ("{'queue': 3}", "plugin 'mine' fails in report_status: TypeError: report_status returned dict"),
            (
                "StatusReport({'queue': object()})",
                "plugin 'mine' fails in report_status: TypeError: Encoding objects",
            ),
        ],
    )
    def test_status_reports(self, write: Write, start: Start, call: Call, result: str, problem: str) -> None:
        source = f"""
            from atlas_plugin import StatusReport, hookimpl

            @hookimpl
            def report_status(): return {result}
        """
        status = document(
            call(start(FakeHost(plugins=[write("mine.py", source)])), "GET", "/v1/atlas/status")
        )
        assert status["status"] == "degraded"
        assert [text.startswith(problem) for text in status["problems"]] == [True]
        assert status["data"]["initialized"] is True, "no plugin replaces the server's own facts"
        assert status["data"].get("queue") == (3 if problem == "slow" else None)

    def test_every_error_is_documented(self) -> None:
        page = (ROOT / "docs/plugins.md").read_text(encoding="utf-8")
        for name in atlas_plugin.__all__:
            error = getattr(atlas_plugin, name)
            if inspect.isclass(error) and issubclass(error, atlas_plugin.AtlasError):
                assert name in page or name in ("AtlasError", "MethodNotAllowed")

    def test_the_example_in_the_documentation_is_the_example(self, start: Start, call: Call) -> None:
        path = ROOT / "examples/plugins/hello.py"
        example = path.read_text(encoding="utf-8")
        assert len(example.splitlines()) <= 10
        assert f"```python\n{example}```" in (ROOT / "docs/plugins.md").read_text(encoding="utf-8")
        application = start(FakeHost(plugins=[str(path)]))
        assert document(call(application, "GET", "/v1/atlas/x/hello")) == {"hello": "world"}
        assert document(call(application, "GET", "/v1/atlas/x/hello", query={"name": "Ada"})) == {
            "hello": "Ada"
        }


class TestBuiltinRoutes:
    def test_status(self, start: Start, call: Call, tmp_path: Path) -> None:
        application = start(FakeHost(memory_save_path=str(tmp_path / "memory")))
        status = document(call(application, "GET", "/v1/atlas/status"))
        assert status["status"] == "healthy"
        assert status["problems"] == []
        data = status["data"]
        assert data["initialized"] is True
        assert data["context_pool_size"] == 4
        assert data["uptime_seconds"] == 1.5
        assert data["memory_persistence"] is True
        assert data["python"]["prefix"] == sys.prefix
        assert data["plugins"] == {"active": len(BUILTIN), "failed": 0}

    def test_plugins(self, start: Start, call: Call) -> None:
        plugins = document(call(start(FakeHost()), "GET", "/v1/atlas/plugins"))["data"]["plugins"]
        assert [plugin["name"] for plugin in plugins] == BUILTIN
        assert plugins[0] == {
            "name": "status",
            "source": "builtin",
            "location": "atlas_plugin.builtin.status",
            "version": atlas_plugin.__version__,
            "explicit": False,
            "state": "active",
            "error": None,
            "routes": ["GET /v1/atlas/status"],
            "hooks": ["register_routes", "startup"],
            "hook_failures": {},
            "request_hooks": [],
            "tiers": [],
            "description": "The server's own facts, and what the plugins report.",
        }

    def test_config_hides_secrets(self, start: Start, call: Call) -> None:
        host = FakeHost()
        secrets = [
            {"name": "set", "secret": True, "value": "x"},
            {"name": "unset", "secret": True, "value": ""},
        ]
        host.entries += secrets
        response = call(start(host), "GET", "/v1/atlas/config")
        settings = document(response)["data"]["settings"]
        assert [setting["value"] for setting in settings[-2:]] == ["***", ""]
        assert settings[0] == host.entries[0]
        assert host.entries[-2]["value"] == "x"

    def test_settings_that_do_not_fit(self) -> None:
        settings = FakeHost(max_state_bytes=True, plugins=None).settings()
        assert settings.texts("plugins") == []
        with pytest.raises(TypeError, match="max_state_bytes is bool, not int"):
            settings.integer("max_state_bytes")
        with pytest.raises(TypeError, match="max_state_bytes is bool, not float"):
            settings.number("max_state_bytes")
        assert settings.number("session_ttl_s") == 86400.0
        with pytest.raises(KeyError, match="no setting nonsense"):
            settings.flag("nonsense")

    def test_log_level(self, start: Start) -> None:
        start(FakeHost(log_level="warn"))
        assert logging.getLogger("atlas").getEffectiveLevel() == logging.WARNING
        start(FakeHost(verbose_logging=True))
        assert logging.getLogger("atlas").getEffectiveLevel() == logging.DEBUG


READY_MADE = """
    from atlas_plugin import hookimpl

    class Plugin:
        '''Says hello.'''

        @hookimpl
        def register_routes(self, routes):
            routes.get("/v1/atlas/x/hello")(lambda request: "hello")
"""


def test_ready_made(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its short name loads it, and each server has an object of its own."""
    write("atlas_hello.py", READY_MADE)
    monkeypatch.setattr(ready_made, "__path__", [str(tmp_path)])
    with (
        Application(FakeHost(plugins=["atlas_hello"])) as first,
        Application(FakeHost(plugins=["atlas_hello"])) as second,
    ):
        for application in (first, second):
            answer = application.handle(Request("GET", "/v1/atlas/x/hello"))
            assert isinstance(answer, Response)
            assert answer.body == b"hello"
        found = info(first, "atlas_hello")
    assert (found.source, found.location) == ("module", "atlas_plugin.plugins.atlas_hello")
    assert found.description == "Says hello."


GUARD = """
    from atlas_plugin import hookimpl

    @hookimpl
    def startup():
        raise OSError("no rules")

    @hookimpl({options})
    def {hook}():
        return None
"""


@pytest.mark.parametrize(
    ("hook", "options", "is_refused"),
    [
        ("on_request", 'fails="closed"', True),
        ("on_request", "", False),
        ("on_response", 'fails="closed"', True),
        ("authenticate", "", True),
        ("authenticate", 'fails="open"', False),
    ],
)
def test_what_protects_and_cannot_start_refuses(
    write: Write, start: Start, hook: str, options: str, is_refused: bool
) -> None:
    source = GUARD.replace("{hook}", hook).replace("{options}", options)
    host = FakeHost(plugins=[write("guard.py", source)])
    application = start(host)
    assert info(application, "guard").state == "failed"
    about = Caller("", "GET", "/", Headers(())) if hook == "authenticate" else CompletionRequest("/", "r")
    asked = application.ask(hook, about)
    assert (asked.rejected is not None) == is_refused
    assert ("no:guard" in host.log_text) == is_refused
    if is_refused:
        assert asked.failed == ("guard: RuntimeError: it could not be started: OSError: no rules",)
