"""What atlas_plugin shares with C++, and the tool that writes it down."""

import re
import subprocess
from pathlib import Path

import pytest

from atlas_build import facts as tool
from atlas_plugin import AtlasError, errors, facts
from atlas_plugin.eviction import Strategy
from atlas_plugin.storage.memory_records import EVENT
from tests.server.harness import REPOSITORY


def test_the_file_is_what_the_headers_say() -> None:
    assert (REPOSITORY / "atlas_plugin/facts.py").read_text(encoding="utf-8") == tool.text_of()


def test_a_change_of_a_header_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (tool.ABI, tool.FACTS, tool.SETTINGS):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text((REPOSITORY / name).read_text(encoding="utf-8"), encoding="utf-8")
    header = tmp_path / tool.FACTS
    changed = header.read_text(encoding="utf-8").replace("MAX_FLUSH_S 3600", "MAX_FLUSH_S 60 // seconds")
    header.write_text(changed, encoding="utf-8")
    assert tool.text_of(tmp_path) == tool.text_of().replace("MAX_FLUSH_S = 3600", "MAX_FLUSH_S = 60")


def test_every_row_of_the_settings_is_read() -> None:
    table = (REPOSITORY / tool.SETTINGS).read_text(encoding="utf-8")
    assert [row["name"] for row in facts.SETTINGS] == re.findall(
        r"^ATLAS_SETTING\((\w+)", table, re.MULTILINE
    )


def test_the_reference_has_every_setting() -> None:
    header = REPOSITORY / "native/include/atlas-config.hpp"
    text = subprocess.check_output([REPOSITORY / "tools/settings-as-members", header], text=True)
    members = re.findall(
        r"^/// [A-Z].*\.\n/// As `(--[\w-]+)` and `(\w+)`\.\n[\w:]+ (\w+) = .+;$", text, re.MULTILINE
    )
    assert members == [(row["flag"], row["env"], row["name"]) for row in facts.SETTINGS]
    assert "ATLAS_SETTING" not in text


def test_every_fact_is_read() -> None:
    header = (REPOSITORY / tool.FACTS).read_text(encoding="utf-8")
    names = re.findall(r"^#define ATLAS_(\w+)(?=\(X\)| +\S)", header, re.MULTILINE)
    assert [name for name, _ in tool.defines(header)] == names
    assert {"ID_PATTERN", "ERROR_TYPES", "TENANT_STATUS"} < set(names)


def test_events_have_the_fields_that_are_unpacked() -> None:
    unpacked = "key parent now priority size seconds what layer kind strategy n_tokens"
    assert tuple(unpacked.split()) == facts.EVENT_FIELDS
    assert len(EVENT.unpack(bytes(EVENT.size))) == len(facts.EVENT_FIELDS)


def test_strategies_are_numbered_as_they_are_named() -> None:
    assert [strategy.name.lower() for strategy in Strategy] == list(facts.STRATEGIES)


def test_every_error_has_the_type_of_its_status() -> None:
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, AtlasError)
    ]
    types = dict(facts.ERROR_TYPES)
    assert {kind.status for kind in kinds} >= types.keys()
    for kind in kinds:
        assert kind.type == types.get(kind.status, types[400])
