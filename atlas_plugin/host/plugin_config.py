"""What plugins are told, in `[plugins.NAME]` of the configuration file and in variables."""

import re
import tomllib
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from atlas_plugin.errors import PluginError


def read_tables(path: str | None) -> dict[str, dict[str, Any]]:
    """The tables by plugin; none without a file. Raises OSError, and ValueError for what is no TOML."""
    if not path:
        return {}
    with Path(path).open("rb") as file:
        plugins = tomllib.load(file).get("plugins", {})
    return plugins if isinstance(plugins, dict) else {}


def variable(plugin: str, field: str) -> str:
    """The environment variable of a field."""
    return "ATLAS_PLUGIN_" + "_".join(re.sub(r"[^A-Z0-9]", "_", part.upper()) for part in (plugin, field))


def config_type(plugin: str, configure: Callable[..., Any]) -> Any:
    """The type that a hook `configure` wants. Raises PluginError where it says none that has fields."""
    kind = typing.get_type_hints(configure).get("config")
    if kind is None or not _fields(kind):
        raise PluginError(
            plugin,
            "configure must say what it takes: configure(config: Config), with a msgspec Struct, a dataclass "
            "or a TypedDict",
        )
    return kind


def convert(plugin: str, kind: Any, table: Mapping[str, Any], environment: Mapping[str, str]) -> Any:
    """The configuration as its type; a variable wins over the file. Raises PluginError."""
    values = dict(table)
    for field, of_field in _fields(kind).items():
        text = environment.get(variable(plugin, field))
        if text:
            values[field] = _value(text, of_field)
    try:
        # Not strictly, since what the environment has is text.
        return msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        message = str(error).replace("$.", "").replace("Object ", "it is ", 1)
        raise PluginError(
            plugin,
            f"wrong configuration: {message}; correct [plugins.{plugin}] of the configuration file, "
            f"or {variable(plugin, 'FIELD')} of the environment",
        ) from None


def _fields(kind: Any) -> dict[str, Any]:
    try:
        (described,) = msgspec.inspect.multi_type_info([kind])
    except TypeError:
        return {}
    return {field.encode_name: field.type for field in getattr(described, "fields", ())}


def _value(text: str, kind: msgspec.inspect.Type) -> Any:
    """Lists and tables are JSON in the environment."""
    if isinstance(kind, msgspec.inspect.StrType) or text[0] not in "[{":
        return text
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
