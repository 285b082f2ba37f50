"""Writes atlas_plugin/facts.py: what Python shares with C++, from the headers that have it."""

import argparse
import ast
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cffi  # type: ignore[import-untyped]

from atlas_build.console import REPOSITORY

ABI = "native/include/atlas-abi.h"
FACTS = "native/core/base/atlas-facts.h"
SETTINGS = "native/include/atlas-settings.def"
OUTPUT = REPOSITORY / "atlas_plugin/facts.py"

# What the settings' types are called, by those of C++, as in setting-values.hpp.
_TYPES = {
    "bool": "bool",
    "int64_t": "int",
    "double": "float",
    "std::string": "string",
    "string_list": "list",
    "LogLevel": "level",
    "LogFormat": "format",
}
# Codes of the module struct, by types of C.
_CODES = {"uint64_t": "Q", "int64_t": "q", "double": "d", "uint32_t": "I", "uint8_t": "B"}

_DEFINE = re.compile(r"^#define ATLAS_(\w+)(\(X\))? +(.+)$", re.MULTILINE)
_ROW = re.compile(r'X\(((?:"[^"]*"|[^()"])*)\)')
_SETTING = re.compile(r'^ATLAS_SETTING\((.*?"\))$', re.MULTILINE | re.DOTALL)
_ARGUMENT = re.compile(r'\s*("(?:[^"\\]|\\.)*"|[^",]+)\s*(?:,|\)$)')


def defines(header: str) -> Iterator[tuple[str, Any]]:
    """The names, without ATLAS_, and the values of a header's facts."""
    lines = re.sub(r"\\\n", " ", header)
    for name, is_list, value in _DEFINE.findall(re.sub(r"/\*.*?\*/|//[^\n]*", "", lines, flags=re.DOTALL)):
        yield name, tuple(map(ast.literal_eval, _ROW.findall(value))) if is_list else ast.literal_eval(value)


def rows(table: str) -> Iterator[list[str]]:
    """What stands in each row of the table of settings."""
    for row in _SETTING.findall(table):
        yield [each.strip() for each in _ARGUMENT.findall(row)]


def settings(table: str) -> Iterator[dict[str, Any]]:
    """The rows of the table of settings, as ATLAS_QUERY_SETTINGS answers them but for value and origin."""
    for name, kind, default, flag, env, *limits, traits, text in rows(table):
        low, high = (_product(limit) for limit in limits)
        yield {
            "name": name,
            "type": _TYPES[kind],
            "flag": "--atlas-" + json.loads(flag),
            "env": "ATLAS_" + json.loads(env),
            "default": _value(_TYPES[kind], default),
            "reload": "live" if "live" in traits else "restart",
            "secret": "secret" in traits,
            "help": json.loads(text),
            **({"min": low, "max": high} if low or high else {}),
        }


def _product(text: str) -> Any:
    return math.prod(ast.literal_eval(factor.strip()) for factor in text.split("*"))


def _value(kind: str, text: str) -> Any:
    plain: Mapping[str, Any] = {"true": True, "false": False, "{}": []}
    if text in plain:
        return plain[text]
    if kind in ("int", "float"):
        return _product(text)
    return json.loads(text) if kind == "string" else text.rpartition("::")[2].lower()


def event_layout(header: str) -> tuple[str, tuple[str, ...]]:
    """The layout of an atlas_memory_event, for the module struct, and the names of its fields."""
    types = re.search(r"/\* cffi: types begin \*/(.*?)/\* cffi: types end \*/", header, re.DOTALL)
    assert types
    ffi = cffi.FFI()
    ffi.cdef(types[1])
    fields = [(name, _CODES[field.type.cname]) for name, field in ffi.typeof("atlas_memory_event").fields]
    return "=" + "".join(code for _, code in fields), tuple(name for name, _ in fields)


def text_of(root: Path = REPOSITORY) -> str:
    """What atlas_plugin/facts.py has to be."""
    abi, facts, table = ((root / name).read_text(encoding="utf-8") for name in (ABI, FACTS, SETTINGS))
    layout, fields = event_layout(abi)
    lines = [
        f'"""What C++ and Python share. `make format` writes it from {ABI}, {FACTS} and {SETTINGS}."""',
        "",
        "# ruff: noqa: E501",
        "# fmt: off",
        "from typing import Any",
        "",
        *(f"{name} = {value!r}" for header in (abi, facts) for name, value in defines(header)),
        "",
        f"EVENT_LAYOUT = {layout!r}",
        f"EVENT_FIELDS = {fields!r}",
        "",
        "SETTINGS: tuple[dict[str, Any], ...] = (",
        *(f"    {row!r}," for row in settings(table)),
        ")",
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Writes the file, or says that it is stale; the exit status."""
    parser = argparse.ArgumentParser(prog="tools/facts", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, fail where the file is stale")
    is_check = parser.parse_args().check
    text = text_of()
    if OUTPUT.is_file() and OUTPUT.read_text(encoding="utf-8") == text:
        return 0
    if is_check:
        print("atlas_plugin/facts.py is stale: run make format")
        return 1
    OUTPUT.write_text(text, encoding="utf-8")
    return 0
