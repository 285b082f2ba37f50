"""Both halves of the embedding agree on what atlas-abi.h declares."""

import re
from pathlib import Path

import pytest

from atlas_plugin import ABI_VERSION
from atlas_plugin.builtin import make_builtins
from atlas_plugin.host import embedding
from atlas_plugin.host.host import LogLevel, ServerCall
from atlas_plugin.testing import FakeHost
from tests.unit.embedding.host import Server, declarations


def test_every_function_of_the_header_is_bound(server: Server) -> None:
    declared = re.findall(
        r"\b(atlas_python_\w+)\(", re.sub(r"/\*.*?\*/", "", declarations("functions"), flags=re.S)
    )
    assert sorted(server.functions) == sorted(declared)
    for name, options in server.externs.items():
        assert options["onerror"]
        assert options.get("error") == (None if name.endswith("_close") else server.lib.ATLAS_FAILED)


def test_the_numbers_agree(server: Server) -> None:
    assert server.lib.ATLAS_ABI_VERSION == ABI_VERSION
    assert {level.name: level.value for level in LogLevel} == {
        level: getattr(server.lib, f"ATLAS_LOG_{level}") for level in ("DEBUG", "INFO", "WARN", "ERROR")
    }
    assert {call.name: call.value for call in ServerCall} == {
        call.name: getattr(server.lib, f"ATLAS_CALL_{call.name}") for call in ServerCall
    }


def test_another_version_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    class OtherLib:
        ATLAS_ABI_VERSION = ABI_VERSION + 1

    with pytest.raises(ImportError, match=f"has ABI version {ABI_VERSION}, this server {ABI_VERSION + 1}"):
        embedding.bind(None, OtherLib(), make_builtins)
    server = Server(FakeHost())
    server.api.abi_version = ABI_VERSION + 1
    assert server.start()[0] == server.lib.ATLAS_FAILED
    assert f"ABI version {ABI_VERSION + 1}" in capfd.readouterr().err


def test_a_start_that_fails_says_why_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("1 / 0")
    server = Server(FakeHost(plugins=[str(tmp_path / "bad.py")], require_python=True))
    status, sink = server.start()
    assert status == server.lib.ATLAS_FAILED
    assert sink.body.startswith(b"plugin 'bad' failed: ZeroDivisionError: division by zero. Repair or remove")
    assert b"\n" not in sink.body


def test_what_def_extern_reports_is_logged(server: Server) -> None:
    error = OverflowError("result")
    server.externs["atlas_python_stop"]["onerror"](OverflowError, error, None)
    assert "OverflowError: result" in server.fake.log_text
