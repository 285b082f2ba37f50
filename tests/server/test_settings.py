"""Flags, environment and TOML file: what they take, which wins, what is refused; and the log levels."""

import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from atlas_plugin import facts
from tests.server import harness
from tests.server.conftest import StartServer
from tests.server.harness import BINARY, Server, write_plugin
from tests.server.keys import with_key

ROWS = {row["name"]: row for row in facts.SETTINGS}

# A value of each setting as text, and what GET /v1/atlas/config shows for it.
VALUES: dict[str, tuple[str, Any]] = {
    "enabled": ("yes", True),
    "memory_save_path": ("gedächtnis", "gedächtnis"),
    "enable_memory_persistence": ("off", False),
    "encryption_key_file": ("no-file", "no-file"),
    "encryption_key_command": ("no-command", "***"),
    "shared_secret_file": ("secret", "secret"),
    "enable_auto_memory": ("no", False),
    "l1_cache_size": ("1048576", 1048576),
    "l2_cache_size": ("0", 0),
    "l3_cache_size": ("0", 0),
    "shared_url": ("file:///mnt/kv", "***"),
    "shared_ttl_s": ("3600", 3600),
    "shared_timeout_ms": ("500", 500.0),
    "shared_connections": ("2", 2),
    "shared_write": ("reused", "reused"),
    "shared_compression": ("zstd", "zstd"),
    "shared_queue_bytes": ("1048576", 1048576),
    "kv_events": ("tcp://127.0.0.1:0", "tcp://127.0.0.1:0"),
    "kv_events_replay": ("tcp://127.0.0.1:0", "tcp://127.0.0.1:0"),
    "kv_events_topic": ("kv", "kv"),
    "kv_events_format": ("arrays", "arrays"),
    "index_size": ("1048576", 1048576),
    "preload_size": ("65536", 65536),
    "auto_save_interval_s": ("1.5", 1.5),
    "session_ttl_s": ("3600", 3600.0),
    "max_sessions": ("0", 0),
    "record_conversations": ("off", False),
    "store_responses": ("off", False),
    "response_ttl_s": ("3600", 3600.0),
    "max_responses": ("0", 0),
    "strict_schemas": ("on", True),
    "background_running": ("3", 3),
    "background_waiting": ("0", 0),
    "normalize_prompts": ("off", False),
    "block_tokens": ("16", 16),
    "max_state_bytes": ("2048", 2048),
    "max_concurrent_atlas_requests": ("8", 8),
    "context_pool_size": ("2", 2),
    "pool_timeout_ms": ("0", 0.0),
    "api_latency_budget_ms": ("0.5", 0.5),
    "key_requests_per_s": ("10", 10.0),
    "key_tokens_per_min": ("6e4", 60000.0),
    "session_requests_per_s": ("0.5", 0.5),
    "session_tokens_per_min": ("6000", 6000.0),
    "admin_key": ("geheim", "***"),
    "share_between_keys": ("on", True),
    "key_calls_per_s": ("2.5", 2.5),
    "max_calls_per_key": ("4", 4),
    "allowed_hosts": ("llm.example,*", ["llm.example", "*"]),
    "enable_metrics_collection": ("off", False),
    "metrics_update_interval_ms": ("10", 10),
    "metrics_history_size": ("0", 0),
    "plugins": ("no:memory,,no:status", ["no:memory", "no:status"]),
    "plugins_dir": ("", ""),
    "python_home": ("", ""),
    "require_python": ("1", True),
    "python_patience_ms": ("75", 75),
    "reload_plugins": ("1", True),
    "hook_deadline_ms": ("75", 75),
    "hook_breaches": ("3", 3),
    "hook_workers": ("2", 2),
    "plugin_calls": ("2", 2),
    "shutdown_timeout_s": ("2.5", 2.5),
    "log_level": ("error", "error"),
    "log_format": ("json", "json"),
    "slow_request_ms": ("2.5", 2.5),
    "verbose_logging": ("true", True),
}

Give = Callable[[Mapping[str, str]], tuple[list[str], dict[str, str]]]


def negated(row: Mapping[str, Any]) -> str:
    return "--no-" + str(row["flag"]).removeprefix("--")


def as_flags(texts: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    words: list[str] = []
    for name, text in texts.items():
        if ROWS[name]["type"] == "bool":
            yes = text in {"1", "yes", "true", "on"}
            words.append(ROWS[name]["flag"] if yes else f"--no-{ROWS[name]['flag'].removeprefix('--')}")
        else:
            words += [ROWS[name]["flag"], text]
    return words, {}


def as_environment(texts: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    return [], {ROWS[name]["env"]: text for name, text in texts.items()}


def configured(server: Server) -> dict[str, dict[str, Any]]:
    answer = server.get("/v1/atlas/config").json()
    return {row["name"]: row for row in answer["data"]["settings"]}


def refused(directory: Path, *arguments: Any, environment: Mapping[str, str] | None = None) -> str:
    """The log of a server that must not start."""
    server = Server(arguments, environment, directory=directory)
    server.spawn()
    assert server.wait() != 0
    return server.log


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers get no settings from the tests' own environment."""
    monkeypatch.setattr(harness, "ENVIRONMENT", {})


class TestSources:
    def test_defaults(self, start_server: StartServer) -> None:
        assert list(configured(start_server()).values()) == [
            {**row, "value": row["default"], "origin": "default"} for row in facts.SETTINGS
        ]

    @pytest.mark.parametrize("give", [as_flags, as_environment])
    def test_every_type(self, start_server: StartServer, tmp_path: Path, server: Server, give: Give) -> None:
        prefix = server.get("/v1/atlas/status").json()["data"]["python"]["prefix"]
        places = {
            "plugins_dir": f"{tmp_path}/größe",
            "python_home": prefix,
            "shared_secret_file": f"{tmp_path}/secret",
        }
        Path(places["shared_secret_file"]).write_text("0123456789abcdef" * 4, encoding="ascii")
        Path(places["plugins_dir"]).mkdir()
        arguments, environment = give({name: places.get(name, text) for name, (text, _) in VALUES.items()})
        server = start_server(arguments, environment)
        rows = configured(with_key(server, VALUES["admin_key"][0]))
        assert {name: row["value"] for name, row in rows.items()} == {
            name: places.get(name, value) for name, (_, value) in VALUES.items()
        }
        assert {row["origin"] for row in rows.values()} == {"flag" if arguments else "environment"}

    def test_the_size_of_a_third_tier_which_has_its_own(self, start_server: StartServer) -> None:
        assert start_server(["--atlas-l3-cache-size", "1024"]).logged(
            "l3_cache_size of 1024 bytes does nothing: what servers share has a limit of its own"
        )

    def test_every_toml_type(self, start_server: StartServer, tmp_path: Path) -> None:
        file = tmp_path / "ätlas.toml"
        file.write_text(
            "# all types\nenable_memory_persistence = false\nmax_state_bytes = 2_048\n"
            'plugins = ["no:memory", "no:status"]\nshutdown_timeout_s = 2.5\n'
            'memory_save_path = "gedächtnis"\nlog_level = "warn"\nrequire_python = true\n',
            encoding="utf-8",
        )
        rows = configured(start_server(environment={"ATLAS_CONFIG": str(file)}))
        given = {name: row["value"] for name, row in rows.items() if row["origin"] == "file"}
        assert given == {
            "enable_memory_persistence": False,
            "max_state_bytes": 2048,
            "plugins": ["no:memory", "no:status"],
            "shutdown_timeout_s": 2.5,
            "memory_save_path": "gedächtnis",
            "log_level": "warn",
            "require_python": True,
        }

    def test_precedence(self, start_server: StartServer, tmp_path: Path) -> None:
        file, other = tmp_path / "atlas.toml", tmp_path / "other.toml"
        file.write_text(
            "max_state_bytes = 1025\nshutdown_timeout_s = 3\nenable_memory_persistence = false\n"
            'plugins = "no:memory"\n'
        )
        other.write_text("max_state_bytes = 9999\n")
        server = start_server(
            ["--atlas-config", file, "--atlas-shutdown-timeout", "5", "--atlas-memory-persistence"],
            {
                "ATLAS_CONFIG": str(other),
                "ATLAS_SHUTDOWN_TIMEOUT": "4",
                "ATLAS_MEMORY_PERSISTENCE": "0",
                "ATLAS_MAX_STATE_BYTES": "1026",
                "ATLAS_PLUGINS": "",
                "ATLAS_NO_SUCH_THING": "1",
            },
        )
        rows = configured(server)
        shown = {name: (row["value"], row["origin"]) for name, row in rows.items()}
        assert shown["max_state_bytes"] == (1026, "environment")
        assert shown["shutdown_timeout_s"] == (5.0, "flag")
        assert shown["enable_memory_persistence"] == (True, "flag")
        assert shown["plugins"] == (["no:memory"], "file")
        assert shown["log_level"] == ("info", "default")
        assert rows["max_state_bytes"]["min"] == 1024
        assert server.logged("[ATLAS] environment variable ATLAS_NO_SUCH_THING is not known and is ignored")

    def test_last_flag_wins(self, start_server: StartServer) -> None:
        server = start_server(["--atlas-max-state-bytes", "2000", "--atlas-max-state-bytes", "3000"])
        assert configured(server)["max_state_bytes"]["value"] == 3000


BAD_VALUES = [
    ("max_state_bytes", "many", "'many' is not allowed: give a whole number"),
    ("max_state_bytes", "1.5", "'1.5' is not allowed: give a whole number"),
    ("max_state_bytes", "1023", "'1023' is not allowed: give a number from 1024 to 1073741824"),
    ("max_state_bytes", "1073741825", "'1073741825' is not allowed: give a number from 1024 to 1073741824"),
    ("max_state_bytes", "99999999999999999999", "'99999999999999999999' is not allowed: give a whole number"),
    ("shutdown_timeout_s", "soon", "'soon' is not allowed: give a number"),
    ("shutdown_timeout_s", "nan", "'nan' is not allowed: give a number"),
    ("shutdown_timeout_s", "0", "'0' is not allowed: give a number from 0.1 to 3600"),
    ("log_level", "lärm", "'lärm' is not allowed: give debug, info, warn or error"),
]


class TestRefusals:
    """Exit status not 0; the message names the place and what is allowed."""

    @pytest.mark.parametrize(("name", "text", "problem"), BAD_VALUES)
    def test_flag(self, tmp_path: Path, name: str, text: str, problem: str) -> None:
        flag = ROWS[name]["flag"]
        assert f'error while handling argument "{flag}": {problem}' in refused(tmp_path, flag, text)

    @pytest.mark.parametrize(
        ("name", "text", "problem"),
        [
            *BAD_VALUES,
            ("require_python", "ja", "'ja' is not allowed: give 1 or 0 (true or false, on or off)"),
        ],
    )
    def test_environment(self, tmp_path: Path, name: str, text: str, problem: str) -> None:
        env = ROWS[name]["env"]
        log = refused(tmp_path, environment={env: text})
        assert f"[ATLAS] environment variable {env}: {problem}" in log

    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            ("max_state_bytes = 1", "key 'max_state_bytes': '1' is not allowed: give a number from 1024"),
            ("max_state_bytes = true", "key 'max_state_bytes': '1' is not allowed: give a number from 1024"),
            ("max_state_bytes = 99999.5", "key 'max_state_bytes': '99999.5' is not allowed: give a whole"),
            ('require_python = "ja"', "key 'require_python': 'ja' is not allowed: give 1 or 0"),
            ('log_level = "loud"', "key 'log_level': 'loud' is not allowed: give debug, info, warn or error"),
            ("plugins = [1]", "key 'plugins': an array may hold strings only"),
            ("plugins = 1979-05-27", "key 'plugins': a value must be a boolean, a number, a string or an"),
            ("[plugins]\na = 1", "key 'plugins': 'a' is no table: [plugins.NAME] configures the plugin NAME"),
            ("slots = 3", "key 'slots': there is no such setting; llama-server --help lists them"),
            ("[atlas]\nenabled = true", "key 'atlas': there is no such setting; llama-server --help lists"),
            ("enabled = true\n\nlog_level = = 1", "line 3: "),
            ("enabled = true\nenabled = false", "line 2: "),
        ],
    )
    def test_file(self, tmp_path: Path, content: str, problem: str) -> None:
        file = tmp_path / "atlas.toml"
        file.write_text(content)
        separator = " " if problem.startswith(("key", "line")) else ""
        log = refused(tmp_path, "--atlas-config", file)
        assert f"[ATLAS] ATLAS configuration file {file},{separator}{problem}" in log

    @pytest.mark.parametrize("name", ["none.toml", "."])
    def test_file_that_cannot_be_read(self, tmp_path: Path, name: str) -> None:
        path = f"{tmp_path}/{name}"
        assert f"[ATLAS] ATLAS configuration file {path}: " in refused(tmp_path, "--atlas-config", path)
        log = refused(tmp_path, environment={"ATLAS_CONFIG": path})
        assert f"[ATLAS] ATLAS configuration file {path}: " in log

    def test_unknown_flag(self, tmp_path: Path) -> None:
        assert "invalid argument: --atlas-nothing" in refused(tmp_path, "--atlas-nothing")

    def test_flag_without_its_value(self, tmp_path: Path) -> None:
        assert "--atlas-memory-path" in refused(tmp_path, "--atlas-memory-path")


def test_help_has_a_group() -> None:
    done = subprocess.run([BINARY, "--help"], capture_output=True, text=True, check=True, timeout=60)
    group = re.search(r"^-+ ATLAS -+\n(.*)", done.stdout, re.MULTILINE | re.DOTALL)
    assert group
    for row in ROWS.values():
        assert re.search(rf"^{row['flag']}[ ,\n]", group[1], re.MULTILINE), row["flag"]
        assert f"(env: {row['env']})" in group[1]
        if row["type"] == "bool":
            assert f"--no-{row['flag'].removeprefix('--')}" in group[1]
    assert "(env: ATLAS_CONFIG)" in group[1]


LOGGING_PLUGIN = """
import logging
from atlas_plugin import hookimpl

@hookimpl
def startup():
    for level in ("debug", "info", "warning", "error"):
        getattr(logging.getLogger("probe"), level)("a line of level %s, ü", level)
"""


SAYING_PLUGIN = """
import logging
from atlas_plugin import hookimpl

log = logging.getLogger("atlas")

@hookimpl
def register_routes(routes):
    @routes.get("/v1/atlas/x/say/{word}")
    def say(request):
        log.debug("debug: %s", request.path_params["word"])
        log.info("info: %s", request.path_params["word"])
"""


class TestLog:
    @pytest.mark.parametrize(
        ("arguments", "visible"),
        [
            (["--atlas-log-level", "debug"], ["debug", "info", "warning", "error"]),
            (["--atlas-verbose", "--atlas-log-level", "error"], ["debug", "info", "warning", "error"]),
            (["-lv", "0"], ["info", "warning", "error"]),
            (["--atlas-log-level", "warn"], ["warning", "error"]),
            (["--atlas-log-level", "error", "-lv", "5"], ["error"]),
        ],
    )
    def test_level(
        self, start_server: StartServer, tmp_path: Path, arguments: list[str], visible: list[str]
    ) -> None:
        plugin = write_plugin(tmp_path, LOGGING_PLUGIN)
        log = start_server(["--atlas-plugin", plugin, *arguments]).log
        shown = re.findall(r" ([IWE]) \[ATLAS\] (debug: )?probe: a line of level (\w+), ü", log)
        marks = {"debug": ("I", "debug: "), "info": ("I", ""), "warning": ("W", ""), "error": ("E", "")}
        assert shown == [(*marks[level], level) for level in visible]
        assert ("[ATLAS] plugins active: " in log) == ("info" in visible)

    def test_level_holds_for_the_settings_themselves(self, start_server: StartServer) -> None:
        server = start_server(["--atlas-log-level", "error"], {"ATLAS_NO_SUCH_THING": "1"})
        assert "[ATLAS]" not in server.log

    def test_level_changes_for_plugins_too(self, start_server: StartServer, tmp_path: Path) -> None:
        plugin = write_plugin(tmp_path, SAYING_PLUGIN)
        server = start_server(["--atlas-plugin", plugin, "--atlas-log-level", "warn"])
        for level, said in (("debug", "first"), ("warn", "second"), ("info", "third")):
            changed = server.post("/v1/atlas/config", {"settings": {"log_level": level}})
            assert changed.json()["data"] == {"changed": {"log_level": level}}
            server.get(f"/v1/atlas/x/say/{said}")
        assert server.logged("info: third")
        assert [word for word in ("first", "second", "third") if f"debug: {word}" in server.log] == ["first"]
        assert [word for word in ("first", "second", "third") if f"info: {word}" in server.log] == [
            "first",
            "third",
        ]

    def test_request_line(self, start_server: StartServer) -> None:
        server = start_server()
        server.post("/completion", {"prompt": "a", "n_predict": 1, "atlas": {"session_id": "ada"}})
        line = (
            r"\[ATLAS\] Request processed in ([\d.]+) ms \(memory_layers=all, cache_hit=\w+\), "
            r"of which ATLAS took ([\d.]+) ms"
        )
        server.wait_until(lambda: re.search(line, server.log))
        found = re.search(line, server.log)
        assert found is not None
        total, overhead = map(float, found.groups())
        assert 0 < overhead < total
        assert "ada" not in server.log
