"""Tiers of the memory that plugins bring: what may be registered, and what may be answered."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from atlas_plugin.errors import PluginError
from atlas_plugin.host.hook_server import HookCall
from atlas_plugin.testing import Application, FakeHost, TierFailedError

DICT = """
from atlas_plugin import *

class Kept(Tier):
    def __init__(self, **options):
        self.values = {}
        vars(self).update(options)

    def probe(self, keys):
        return [key in self.values for key in keys]

    def get(self, keys):
        return [self.values.get(key) for key in keys]

    def put(self, key, value, ttl_s):
        self.values[key] = value

    def remove(self, keys):
        for key in keys:
            self.values.pop(key, None)

    def stats(self):
        return TierStats(len(self.values), sum(map(len, self.values.values())))
"""
REGISTER = """
@hookimpl
def register_tiers():
    return [{}]
"""

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a plugin with a tier that is made by `made`; `more` are methods in the place of its own."""

    def writing(made: str = "Kept()", more: str = "", name: str = "mine") -> Path:
        path = tmp_path / f"{name}.py"
        path.write_text(DICT + more + REGISTER.format(made), encoding="utf-8")
        return path

    return writing


def test_a_tier_keeps_what_it_is_given(write: Write) -> None:
    host = FakeHost(plugins=[str(write())])
    with Application(host) as application:
        assert host.tiers == [
            {"plugin": "mine", "tier": "Kept", "layer": 4, "deadline_ms": 1000, "is_new": True}
        ]
        (info,) = [one for one in application.plugins.infos() if one.name == "mine"]
        assert info.tiers == ({"name": "Kept", "layer": 4, "deadline_ms": 1000},)
        tier = application.tier(4)
        assert tier.probe(["a", "b"]) == [False, False]
        tier.put("a", b"first")
        tier.put("b", b"")
        assert tier.probe(["a", "c", "b"]) == [True, False, True]
        assert tier.get(["a", "b", "c"]) == [b"first", b""]
        assert tier.get(["c", "a"]) == []
        assert tier.keep(["b", "c"]) == [True, False]
        tier.remove(["a", "c"])
        assert tier.probe(["a", "b"]) == [False, True]
        assert tier.held == {"entries": 0, "bytes": 0}  # asked once a second at most
        with pytest.raises(ValueError, match="no plugin has a tier for layer 5"):
            application.tier(5)


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        ("Kept(layer=3)", "tier 'Kept' asks for layer 3: 1 is RAM, 2 the disk, 3 what servers share"),
        ("Kept(layer=11)", "give its `layer` a number from 4 to 10"),
        ("Kept(layer=True)", "asks for layer True"),
        ("Kept(layer=4.0)", "asks for layer 4.0"),
        ("Kept(deadline_ms=0)", "has a deadline_ms of 0: give 1 to 60000"),
        ("Kept(name='a b')", "a tier's name is 'a b': give 1 to 64 of"),
        ("Kept(name=7)", "a tier's name is 7"),
        ("Kept(), 7", "register_tiers returned int: it has to be a list of Tier"),
        ("Kept()], [", "register_tiers returned list"),
        ("Kept(name='one'), Kept(name='two')", "tier 'two' asks for layer 4, which is that of tier 'one'"),
        ("Tier()", "Can't instantiate abstract class Tier"),
    ],
)
def test_what_may_not_be_registered(write: Write, made: str, problem: str) -> None:
    path = str(write(made))
    with pytest.raises(PluginError) as raised, Application(FakeHost(plugins=[path])):
        pass
    assert problem in str(raised.value)


def test_two_plugins_for_one_layer(write: Write) -> None:
    paths = [str(write()), str(write(name="other"))]
    with pytest.raises(PluginError) as raised, Application(FakeHost(plugins=paths)):
        pass
    assert "tier 'Kept' asks for layer 4, which is that of tier 'Kept' of plugin 'mine'" in str(raised.value)
    host = FakeHost(plugins=[paths[0], str(write("Kept(layer=10)", name="other"))])
    with Application(host):
        assert [row["layer"] for row in host.tiers] == [4, 10]


@pytest.mark.parametrize(
    ("what", "does", "problem"),
    [
        ("probe", "return [True]", "ValueError: probe has another number of answers than of keys, 2"),
        ("probe", "return [True] * 3", "ValueError: probe has another number"),
        ("probe", "return [1, 0]", "TypeError: probe answered int, not bool"),
        ("probe", "return None", "TypeError: probe returned NoneType, not a list"),
        ("probe", "return b'11'", "TypeError: probe returned bytes"),
        ("probe", "raise SystemExit('gone')", "SystemExit: gone"),
        ("probe", "raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("probe", "return self.probe(keys)", "RecursionError"),
        ("keep", "return [True]", "ValueError: keep has another number"),
        ("get", "return b'value'", "TypeError: get returned bytes, not a list"),
        ("get", "return ['value', None]", "TypeError: get answered str, not bytes"),
        ("get", "return [b'1', b'2', b'3']", "ValueError: get has more values than there are keys, 2"),
        ("get", "return [memoryview(b'1234')[::2]]", "ValueError: get answered 2 bytes"),
        ("get", "return (b'' for _ in iter(int, 1))", "ValueError: get has more values"),
        ("get", "return [memoryview(bytes(1 << 29)), b'1']", "ValueError: get answered 536870913 bytes"),
        ("put", "raise OSError(28, 'No space left on device')", "OSError: [Errno 28] No space left"),
        ("remove", "raise ValueError('two\\nlines')", "ValueError: two"),
    ],
)
def test_what_may_not_be_answered(write: Write, what: str, does: str, problem: str) -> None:
    arguments = {"put": "key, value, ttl_s", "keep": "keys, ttl_s"}.get(what, "keys")
    more = f"\n    def {what}(self, {arguments}):\n        {does}\n"
    with Application(FakeHost(plugins=[str(write(more=more))])) as application:
        tier = application.tier(4)
        asked: tuple[Any, ...] = ("a", b"value") if what == "put" else (["a", "b"],)
        with pytest.raises(TierFailedError) as raised:
            getattr(tier, what)(*asked)
        assert problem in str(raised.value)
        assert "\n" not in str(raised.value)
        (sentence,) = application.plugins.failing
        assert sentence.startswith("plugin 'mine' fails in tier: ")
        (counted,) = [one for one in application.plugins.hooks.calls() if one.hook == "tier"]
        assert counted.errors == 1


@pytest.mark.parametrize("stats", ["7", "TierStats(-1)", "TierStats(1.5)", "TierStats(bytes=True)", "1 / 0"])
def test_wrong_stats_spoil_no_answer(write: Write, stats: str) -> None:
    more = f"\n    def stats(self):\n        return {stats}\n"
    with Application(FakeHost(plugins=[str(write(more=more))])) as application:
        tier = application.tier(4)
        assert tier.probe(["a"]) == [False]
        assert tier.held == {}
        assert application.plugins.failing


def test_only_what_is_new_is_told_to_be_so(write: Write) -> None:
    first = write()
    second = write("Kept(layer=5)", name="other")
    host = FakeHost(plugins=[str(first), str(second)])
    with Application(host) as application:
        assert [row["is_new"] for row in host.tiers] == [True, True]
        second.write_text(second.read_text() + "\n# changed", encoding="utf-8")
        application.plugins.reload()
        assert [(row["layer"], row["is_new"]) for row in host.tiers] == [(4, False), (5, True)]
        second.write_text("", encoding="utf-8")
        application.plugins.reload()
        assert [(row["layer"], row["is_new"]) for row in host.tiers] == [(4, False)]


def test_a_tier_without_a_memory(write: Write) -> None:
    host = FakeHost(plugins=[str(write())])
    host.memory_status = None
    with Application(host):
        assert "the tiers of plugins are not used: this server has no memory" in host.log_text


def test_a_call_that_nobody_waits_for(write: Write) -> None:
    with Application(FakeHost(plugins=[str(write())])) as application:
        table = application.tier(4)._table
        call = HookCall(1, 0, 0, 7, b'{"do": "put", "ttl_s": 1}', b"a", 3)
        table.run(0, call, lambda: None)
        assert application.tier(4).probe(["a"]) == [False]
